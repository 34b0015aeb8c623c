// VcpuIo: the call-outs of one vCPU into the board. Everything is a forward; nothing here takes a lock.
#pragma once

#include "engine/engine.hh"
#include "machine/board.hh"

namespace tenon {

class VcpuIo final : public CpuIo {
 public:
  /// `board` outlives this object.
  VcpuIo(Board& board, VcpuId id) : board_(board), id_(id), apic_(board.local_apic(id)) {}

  uint32_t read_port(IoPort port, unsigned size_bytes) override {
    return static_cast<uint32_t>(board_.ports().read(number(port), size_bytes));
  }
  void write_port(IoPort port, unsigned size_bytes, uint32_t value) override {
    board_.ports().write(number(port), size_bytes, value);
  }
  uint64_t read_mmio(Gpa gpa, unsigned size_bytes) override {
    return has_apic_at(gpa) ? apic_->read_mmio(gpa, size_bytes) : board_.mmio().read(gpa.value(), size_bytes);
  }
  void write_mmio(Gpa gpa, unsigned size_bytes, uint64_t value) override {
    if (has_apic_at(gpa)) return apic_->write_mmio(gpa, size_bytes, value);
    board_.mmio().write(gpa.value(), size_bytes, value);
  }

  bool read_msr(uint32_t index, uint64_t& value) override {
    if (apic_ != nullptr && LocalApic::owns_msr(index)) return apic_->read_msr(index, value);
    return board_.personality().read_msr(id_, index, value);
  }
  bool write_msr(uint32_t index, uint64_t value) override {
    if (apic_ != nullptr && LocalApic::owns_msr(index)) return apic_->write_msr(index, value);
    return board_.personality().write_msr(id_, index, value);
  }
  bool hypercall(std::span<uint64_t, 16> gpr, unsigned cpl) override {
    return board_.personality().hypercall(gpr, cpl);
  }
  void tsc_offset_changed(uint64_t offset) override { board_.personality().tsc_offset_changed(id_, offset); }

  // Only engines without in-kernel interrupt controllers call these, so apic_ is there.
  int acknowledge_interrupt() override { return apic_->acknowledge_interrupt(); }
  bool interrupt_pending() override { return apic_->interrupt_pending(); }
  void timer_expired() override { apic_->timer_expired(); }
  uint8_t startup_vector() override { return apic_->startup_vector(); }
  void init_received() override { apic_->init_received(); }
  uint8_t read_cr8() override { return apic_->read_cr8(); }
  void write_cr8(uint8_t value) override { apic_->write_cr8(value); }

 private:
  bool has_apic_at(Gpa gpa) const { return apic_ != nullptr && apic_->claims(gpa); }

  Board& board_;
  const VcpuId id_;
  LocalApic* const apic_;
};

}  // namespace tenon
