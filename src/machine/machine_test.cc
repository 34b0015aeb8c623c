#include "machine/machine.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <future>

#include "machine/fake_engine.hh"
#include "machine/loader/synthetic_kernel.hh"

namespace tenon {
namespace {

using ::testing::HasSubstr;

/// A file that is gone with the object.
class TemporaryFile {
 public:
  TemporaryFile(const std::string& name, const synthetic::Buffer& content)
      : path_(::testing::TempDir() + "tenon_machine_test_" + std::to_string(::getpid()) + "_" + name) {
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
  }
  ~TemporaryFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

class MachineTest : public ::testing::Test {
 protected:
  MachineConfig config(FakeGuest guest) {
    MachineConfig config;
    config.engine_instance = std::make_unique<FakeEngine>(std::move(guest));
    config.memory_bytes = 64 * kMiB;
    config.kernel = kernel_.path();
    config.on_end = [this](MachineEnd end) { end_.set_value(std::move(end)); };
    return config;
  }
  std::unique_ptr<Machine> start(MachineConfig config) {
    auto machine = Machine::create(std::move(config));
    EXPECT_TRUE(machine) << machine.error().message();
    const auto started = (*machine)->start();
    EXPECT_TRUE(started) << started.error().message();
    return std::move(*machine);
  }
  MachineEnd wait_for_end() { return end_.get_future().get(); }

  std::promise<MachineEnd> end_;
  TemporaryFile kernel_{"kernel", synthetic::make_elf()};
};

Halt power_off(CpuIo& io, const std::atomic<bool>& stop) {
  io.write_port(IoPort(0x604), 2, 5 << 10 | 1 << 13);
  return fake_idle(stop);
}

TEST_F(MachineTest, PowerOff) {
  const auto machine =
      start(config([](VcpuId, CpuIo& io, const std::atomic<bool>& stop) { return power_off(io, stop); }));
  EXPECT_EQ(wait_for_end().kind, MachineEnd::Kind::kPowerOff);
  EXPECT_EQ(machine->engine_name(), "fake");
  EXPECT_THAT(machine->kernel_description(), HasSubstr("vmlinux"));
}

TEST_F(MachineTest, KernelIsInMemoryAndTheFirstVcpuAtItsEntry) {
  const auto machine = start(config([](VcpuId, CpuIo&, const std::atomic<bool>& stop) { return fake_idle(stop); }));
  EXPECT_EQ(machine->vcpu_state(VcpuId{0}).error().code(), ErrorCode::kBusy);
  machine->pause();
  EXPECT_EQ(machine->vcpu_state(VcpuId{0})->rip, 0x1000010u);
  std::byte code{};
  EXPECT_TRUE(machine->board().memory().read(Gpa(0x1000000 + 0x100), {&code, 1}));
  EXPECT_EQ(code, std::byte{0x90});
  machine->resume();
  machine->stop();
  EXPECT_EQ(wait_for_end().kind, MachineEnd::Kind::kStopped);
}

TEST_F(MachineTest, ResetLoadsTheGuestAgain) {
  std::atomic<int> boots{0};
  Machine* running = nullptr;
  std::atomic<bool> found_clean{false};
  auto machine = Machine::create(config([&](VcpuId, CpuIo& io, const std::atomic<bool>& stop) {
    const Gpa bss(0x1000000 + 0x1000);
    const std::byte dirt{0x55};
    std::byte seen{};
    running->board().memory().read(bss, {&seen, 1});
    if (++boots == 1) {
      running->board().memory().write(bss, {&dirt, 1});
      io.write_port(IoPort(0x64), 1, 0xfe);
      return fake_idle(stop);
    }
    found_clean = seen == std::byte{0};
    return power_off(io, stop);
  }));
  ASSERT_TRUE(machine) << machine.error().message();
  running = machine->get();
  ASSERT_TRUE(running->start());
  EXPECT_EQ(wait_for_end().kind, MachineEnd::Kind::kPowerOff);
  EXPECT_EQ(boots, 2);
  EXPECT_TRUE(found_clean);  // the kernel's bss is zero again
  EXPECT_EQ(running->stats().resets, 1u);
}

TEST_F(MachineTest, TripleFaultResets) {
  std::atomic<int> boots{0};
  const auto machine = start(config([&boots](VcpuId, CpuIo& io, const std::atomic<bool>& stop) -> Halt {
    if (++boots == 1) return {Halt::Reason::kTripleFault, ""};
    return power_off(io, stop);
  }));
  EXPECT_EQ(wait_for_end().kind, MachineEnd::Kind::kPowerOff);
  EXPECT_EQ(boots, 2);
}

TEST_F(MachineTest, ResetCanEndTheMachine) {
  MachineConfig once = config([](VcpuId, CpuIo& io, const std::atomic<bool>& stop) {
    io.write_port(IoPort(0xcf9), 1, 0x06);
    return fake_idle(stop);
  });
  once.ends_on_reset = true;
  const auto machine = start(std::move(once));
  EXPECT_EQ(wait_for_end().kind, MachineEnd::Kind::kReset);
}

TEST_F(MachineTest, ResetFailsWhenTheKernelIsGone) {
  const auto machine = start(config([this](VcpuId, CpuIo& io, const std::atomic<bool>& stop) {
    std::remove(kernel_.path().c_str());
    io.write_port(IoPort(0xcf9), 1, 0x06);
    return fake_idle(stop);
  }));
  const MachineEnd end = wait_for_end();
  EXPECT_EQ(end.kind, MachineEnd::Kind::kError);
  EXPECT_THAT(end.description, HasSubstr("cannot start again"));
}

TEST_F(MachineTest, DebugExit) {
  const auto machine = start(config([](VcpuId, CpuIo& io, const std::atomic<bool>& stop) {
    io.write_port(IoPort(0xf4), 4, 17);
    return fake_idle(stop);
  }));
  const MachineEnd end = wait_for_end();
  EXPECT_EQ(end.kind, MachineEnd::Kind::kDebugExit);
  EXPECT_EQ(end.value, 17u);
}

TEST_F(MachineTest, EngineErrorEndsTheMachineAndNamesTheVcpu) {
  MachineConfig two = config([](VcpuId id, CpuIo&, const std::atomic<bool>& stop) -> Halt {
    if (number(id) == 1) return {Halt::Reason::kError, "bad microcode"};
    return fake_idle(stop);
  });
  two.cpus = 2;
  const auto machine = start(std::move(two));
  const MachineEnd end = wait_for_end();
  EXPECT_EQ(end.kind, MachineEnd::Kind::kError);
  EXPECT_EQ(end.description, "vCPU 1: bad microcode");
}

TEST_F(MachineTest, PauseStopsGuestTimeAndEveryVcpu) {
  std::atomic<int> running{0};
  MachineConfig four = config([&running](VcpuId, CpuIo&, const std::atomic<bool>& stop) {
    ++running;
    const Halt halt = fake_idle(stop);
    --running;
    return halt;
  });
  four.cpus = 4;
  const auto machine = start(std::move(four));
  for (int round = 0; round < 20; ++round) {
    machine->pause();
    EXPECT_EQ(running, 0);
    machine->resume();
  }
  machine->stop();
  EXPECT_EQ(running, 0);
  EXPECT_EQ(wait_for_end().kind, MachineEnd::Kind::kStopped);
}

TEST_F(MachineTest, StopWorksInEveryState) {
  const FakeGuest idle = [](VcpuId, CpuIo&, const std::atomic<bool>& stop) { return fake_idle(stop); };
  auto never_started = Machine::create(config(idle));
  ASSERT_TRUE(never_started);
  (*never_started)->stop();
  const auto paused = start(config(idle));
  paused->pause();
  paused->stop();
  paused->stop();
  paused->resume();  // nothing happens
}

TEST_F(MachineTest, VcpuThatCannotBeCreatedFailsStart) {
  MachineConfig broken = config({});
  auto engine = std::make_unique<FakeEngine>(FakeGuest());
  engine->failing_vcpu = 2;
  broken.engine_instance = std::move(engine);
  broken.cpus = 4;
  auto machine = Machine::create(std::move(broken));
  ASSERT_TRUE(machine);
  const auto started = (*machine)->start();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().message(), "vCPU 2: no memory for the vCPU");
}

struct BadConfig {
  const char* name;
  std::function<void(MachineConfig&)> spoil;
  const char* message;
};

TEST_F(MachineTest, BadConfigurationsAreNamed) {
  const BadConfig cases[] = {
      {"kernel", [](MachineConfig& c) { c.kernel = "/nonexistent/vmlinuz"; }, "/nonexistent/vmlinuz"},
      {"initrd", [](MachineConfig& c) { c.initrd = "/nonexistent/initrd"; }, "/nonexistent/initrd"},
      {"cpus", [](MachineConfig& c) { c.cpus = 0; }, "0 vCPUs"},
      {"memory", [](MachineConfig& c) { c.memory_bytes = 4097; }, "4097 bytes"},
      {"small", [](MachineConfig& c) { c.memory_bytes = 8 * kMiB; }, "more memory"},
      {"personality", [](MachineConfig& c) { c.personality = "beos"; }, "beos"},
      {"engine",
       [](MachineConfig& c) {
         c.engine_instance = nullptr;
         c.engine.name = "warp";
       },
       "warp"},
  };
  for (const BadConfig& bad : cases) {
    MachineConfig spoiled = config([](VcpuId, CpuIo&, const std::atomic<bool>& stop) { return fake_idle(stop); });
    bad.spoil(spoiled);
    const auto machine = Machine::create(std::move(spoiled));
    ASSERT_FALSE(machine) << bad.name;
    EXPECT_THAT(machine.error().message(), HasSubstr(bad.message)) << bad.name;
  }
}

}  // namespace
}  // namespace tenon
