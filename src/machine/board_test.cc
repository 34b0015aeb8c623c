#include "machine/board.hh"

#include <gtest/gtest.h>

#include <string>

#include "machine/fake_engine.hh"
#include "machine/vcpu_io.hh"
#include "vm/fake_clock.hh"

namespace tenon {
namespace {

class RecordingSink final : public InterruptSink, public ByteSink {
 public:
  void set_gsi(Gsi gsi, bool level) override { events.push_back({number(gsi), level}); }
  void send_msi(const MsiMessage& message) override { messages.push_back(message); }
  void write(std::span<const uint8_t> bytes) override { text.append(bytes.begin(), bytes.end()); }
  std::vector<std::pair<uint32_t, bool>> events;
  std::vector<MsiMessage> messages;
  std::string text;
};

class BoardTest : public ::testing::Test {
 protected:
  std::unique_ptr<Board> make(uint32_t vcpus = 1, InterruptSink* in_kernel = nullptr, uint64_t memory = 64 * kMiB) {
    engine_ = std::make_unique<FakeEngine>(FakeGuest(), in_kernel);
    BoardConfig config;
    config.engine = engine_.get();
    config.clock = &clock_;
    config.vcpus = vcpus;
    config.memory_bytes = memory;
    config.uuid = uuid_;
    config.serial[0] = &sink_;
    config.on_reset = [this] { ++resets_; };
    config.on_power_off = [this] { ++power_offs_; };
    config.on_debug_exit = [this](uint32_t value) { debug_value_ = value; };
    auto board = Board::create(config);
    EXPECT_TRUE(board) << board.error().message();
    return std::move(*board);
  }
  /// An IOAPIC entry: fixed, edge, physical destination APIC 0.
  static void route(VcpuIo& io, unsigned pin, uint8_t vector) {
    const auto write = [&io](uint32_t index, uint32_t value) {
      io.write_mmio(Gpa(0xfec00000), 4, index);
      io.write_mmio(Gpa(0xfec00010), 4, value);
    };
    write(0x11 + 2 * pin, 0);
    write(0x10 + 2 * pin, vector);
  }
  static void enable_apic(VcpuIo& io) { io.write_mmio(Gpa(0xfee000f0), 4, 0x1ff); }

  FakeClock clock_;
  RecordingSink sink_;
  std::unique_ptr<FakeEngine> engine_;
  std::array<uint8_t, 16> uuid_{};
  int resets_ = 0;
  int power_offs_ = 0;
  uint32_t debug_value_ = 0;
};

TEST_F(BoardTest, PortsReachTheChips) {
  const auto board = make();
  VcpuIo io(*board, VcpuId{0});
  for (const uint16_t port : {0x3f8, 0x2f8, 0x3e8, 0x2e8})
    EXPECT_EQ(io.read_port(IoPort(port + 5), 1), 0x60u) << port;  // LSR: transmitter empty
  io.write_port(IoPort(0xcf8), 4, 0x80000000);
  EXPECT_EQ(io.read_port(IoPort(0xcfc), 4), 0x29c08086u);
  EXPECT_EQ(io.read_mmio(kEcam.base, 4), 0x29c08086u);
  EXPECT_EQ(io.read_mmio(Gpa(kEcam.base.value() + (0x1f << 15)), 2), 0x8086u);
  io.write_port(IoPort(0x21), 1, 0xa5);
  EXPECT_EQ(io.read_port(IoPort(0x21), 1), 0xa5u);
  EXPECT_EQ(io.read_port(IoPort(0x5000), 2), 0xffffu);
  EXPECT_EQ(board->ports().unclaimed_count(), 1u);
}

TEST_F(BoardTest, SerialOutputReachesItsSink) {
  const auto board = make();
  VcpuIo io(*board, VcpuId{0});
  for (const char c : std::string("hi")) io.write_port(IoPort(0x3f8), 1, static_cast<uint8_t>(c));
  io.write_port(IoPort(0x2f8), 1, 'x');  // not connected
  for (Device* device : board->devices()) device->pause();
  EXPECT_EQ(sink_.text, "hi");
}

TEST_F(BoardTest, IsaInterruptReachesALocalApicThroughTheIoApic) {
  const auto board = make(2);
  VcpuIo io(*board, VcpuId{0});
  enable_apic(io);
  route(io, 4, 0x31);
  EXPECT_FALSE(io.interrupt_pending());
  board->interrupts().set_gsi(Gsi{4}, true);
  EXPECT_TRUE(io.interrupt_pending());
  EXPECT_NE(board->signal(VcpuId{0}).pending() & VcpuSignal::kInterrupt, 0u);
  EXPECT_EQ(io.acknowledge_interrupt(), 0x31);
  EXPECT_EQ(io.acknowledge_interrupt(), -1);
}

TEST_F(BoardTest, IsaInterruptReachesTheBootstrapProcessorThroughThe8259) {
  const auto board = make();
  VcpuIo io(*board, VcpuId{0});
  // ICW1-4 of the master with vectors from 0x20, then unmask IRQ 1 only.
  for (const auto& [port, value] : {std::pair{0x20, 0x11}, {0x21, 0x20}, {0x21, 0x04}, {0x21, 0x01}, {0x21, 0xfd}})
    io.write_port(IoPort(static_cast<uint16_t>(port)), 1, static_cast<uint32_t>(value));
  board->interrupts().set_gsi(Gsi{1}, true);
  EXPECT_TRUE(io.interrupt_pending());
  EXPECT_EQ(io.acknowledge_interrupt(), 0x21);
}

TEST_F(BoardTest, TimerIsGsi2AndIsaIrq0) {
  const auto board = make();
  VcpuIo io(*board, VcpuId{0});
  enable_apic(io);
  route(io, 2, 0x30);
  io.write_port(IoPort(0x43), 1, 0x34);  // channel 0, mode 2
  io.write_port(IoPort(0x40), 1, 0x00);
  io.write_port(IoPort(0x40), 1, 0x10);
  clock_.advance_ns(20'000'000);
  EXPECT_EQ(io.acknowledge_interrupt(), 0x30);
}

TEST_F(BoardTest, SharedSerialLineIsWiredOr) {
  RecordingSink in_kernel;
  WiredOr line(IrqLine(in_kernel, Gsi{4}));
  const IrqLine a = line.input(0);
  const IrqLine b = line.input(1);
  a.set(true);
  b.set(true);
  a.set(false);
  EXPECT_EQ(in_kernel.events, (std::vector<std::pair<uint32_t, bool>>{{4, true}}));
  b.set(false);
  EXPECT_EQ(in_kernel.events.size(), 2u);
}

TEST_F(BoardTest, InKernelControllersReplaceOurs) {
  RecordingSink in_kernel;
  const auto board = make(1, &in_kernel);
  EXPECT_EQ(board->local_apic(VcpuId{0}), nullptr);
  VcpuIo io(*board, VcpuId{0});
  EXPECT_EQ(io.read_port(IoPort(0x21), 1), 0xffu);
  EXPECT_EQ(io.read_mmio(Gpa(0xfee00020), 4), 0xffffffffu);
  uint64_t value = 0;
  EXPECT_FALSE(io.read_msr(0x1b, value));
  io.write_port(IoPort(0x3f9), 1, 2);  // the transmitter is empty: an interrupt at once
  io.write_port(IoPort(0x3fc), 1, 8);
  EXPECT_FALSE(in_kernel.events.empty());
  EXPECT_EQ(in_kernel.events.back(), (std::pair<uint32_t, bool>{4, true}));
}

TEST_F(BoardTest, GuestRequests) {
  const auto board = make();
  VcpuIo io(*board, VcpuId{0});
  io.write_port(IoPort(0xcf9), 1, 0x06);
  EXPECT_EQ(resets_, 1);
  io.write_port(IoPort(0x64), 1, 0xfe);
  EXPECT_EQ(resets_, 2);
  io.write_port(IoPort(0x604), 2, 5 << 10 | 1 << 13);
  EXPECT_EQ(power_offs_, 1);
  io.write_port(IoPort(0xf4), 4, 42);
  EXPECT_EQ(debug_value_, 42u);
}

TEST_F(BoardTest, MsrsGoToApicPersonalityOrNowhere) {
  const auto board = make(2);
  VcpuIo io(*board, VcpuId{1});
  uint64_t value = 0;
  EXPECT_TRUE(io.read_msr(0x1b, value));
  EXPECT_EQ(value, 0xfee00800u);  // not the bootstrap processor
  EXPECT_TRUE(io.write_msr(0x4b564d01, 0x1001));
  EXPECT_TRUE(io.read_msr(0x4b564d01, value));
  EXPECT_EQ(value, 0x1001u);
  EXPECT_FALSE(io.read_msr(0xc0010000, value));
  EXPECT_FALSE(io.write_msr(0xc0010000, 0));
}

TEST_F(BoardTest, FirmwareTablesAreInGuestMemory) {
  const auto board = make();
  const auto rsdp = board->load_firmware_tables();
  ASSERT_TRUE(rsdp) << rsdp.error().message();
  char text[8];
  ASSERT_TRUE(board->memory().read(*rsdp, std::as_writable_bytes(std::span(text))));
  EXPECT_EQ(std::string(text, 8), "RSD PTR ");
  ASSERT_TRUE(board->memory().read(Gpa(0xf0000), std::as_writable_bytes(std::span(text))));
  EXPECT_EQ(std::string(text, 5), "_SM3_");
}

TEST_F(BoardTest, UuidIsInSmbiosByteOrder) {
  uuid_ = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
  const auto board = make();
  ASSERT_TRUE(board->load_firmware_tables());
  std::string tables(512, ' ');
  ASSERT_TRUE(board->memory().read(Gpa(0xf0000), std::as_writable_bytes(std::span(tables))));
  const std::string wanted("\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff", 16);
  EXPECT_NE(tables.find(wanted), std::string::npos);
}

TEST_F(BoardTest, MemoryAboveFourGigabytes) {
  const auto board = make(1, nullptr, 4 * kGiB);
  EXPECT_EQ(board->memory().ram_size_bytes(), 4 * kGiB);
  EXPECT_NE(board->memory().find(Gpa(4 * kGiB)), nullptr);
  EXPECT_EQ(board->memory().find(Gpa(3 * kGiB)), nullptr);
}

TEST_F(BoardTest, SavedStatesHaveUniqueNamesAndRestore) {
  const auto board = make(2);
  std::vector<std::string> names;
  for (Device* device : board->devices()) {
    names.emplace_back(device->name());
    const auto restored = device->restore(device->save());
    EXPECT_TRUE(restored) << device->name() << ": " << restored.error().message();
  }
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
}

TEST_F(BoardTest, ManyVcpus) {
  const auto board = make(300);
  VcpuIo io(*board, VcpuId{299});
  uint64_t value = 0;
  ASSERT_TRUE(io.read_msr(0x1b, value));
  EXPECT_EQ(value, 0xfee00c00u);  // in x2APIC mode, as IDs above 254 need
  ASSERT_TRUE(io.read_msr(0x802, value));
  EXPECT_EQ(value, 299u);
  EXPECT_TRUE(board->load_firmware_tables());
}

}  // namespace
}  // namespace tenon
