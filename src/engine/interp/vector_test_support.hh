// TestMachine with vector state switched on, registers by value, and faults that stop the guest.
#pragma once

#include <array>
#include <cstring>

#include "engine/interp/interp_test_support.hh"
#include "engine/interp/vector_state.hh"

namespace tenon::interp {

using Ymm = std::array<uint64_t, 4>;

class VectorMachine : public TestMachine {
 public:
  static constexpr unsigned kNoFault = ~0u;
  static constexpr uint64_t kUnmapped = 0x3ff000;

  /// 64-bit code with AVX enabled; faults end the run.
  void prepare_64(std::span<const uint8_t> code) {
    enter_64(code);
    state.cr4 |= x86::kCr4Osxsave;
    state.xcr0 = 7;
    catch_faults();
  }
  /// 32-bit code; faults end the run too.
  void prepare_32(std::span<const uint8_t> code) {
    enter_32(code);
    state.cr4 |= x86::kCr4Osfxsr | x86::kCr4Osxmmexcpt | x86::kCr4Osxsave;
    state.xcr0 = 7;
  }

  void set_ymm(unsigned number, const Ymm& value) {
    std::memcpy(xsave() + x86::XsaveArea::kXmmOffset + 16 * number, value.data(), 16);
    std::memcpy(xsave() + x86::XsaveArea::kYmmHighOffset + 16 * number, value.data() + 2, 16);
    use_components(7);
  }
  Ymm ymm(unsigned number) {
    Ymm value;
    std::memcpy(value.data(), xsave() + x86::XsaveArea::kXmmOffset + 16 * number, 16);
    std::memcpy(value.data() + 2, xsave() + x86::XsaveArea::kYmmHighOffset + 16 * number, 16);
    return value;
  }
  void set_mxcsr(uint32_t value) { std::memcpy(xsave() + x86::XsaveArea::kMxcsrOffset, &value, sizeof value); }
  uint32_t mxcsr() { return legacy<uint32_t>(x86::XsaveArea::kMxcsrOffset); }
  template <typename T>
  T legacy(unsigned at) {
    T value;
    std::memcpy(&value, xsave() + at, sizeof value);
    return value;
  }
  uint16_t x87_control() { return legacy<uint16_t>(0); }
  uint16_t x87_status() { return legacy<uint16_t>(2); }
  uint8_t x87_tags() { return legacy<uint8_t>(4); }
  unsigned x87_top() { return (x87_status() >> 11) & 7u; }
  void set_x87_control_status(uint16_t control, uint16_t status) {
    std::memcpy(xsave(), &control, 2);
    std::memcpy(xsave() + 2, &status, 2);
    xsave()[4] = 0;
    use_components(1);
  }

  /// Vector of the exception that ended the run, or kNoFault.
  unsigned fault_vector() const {
    return state.rip >= kHandlers && state.rip < kHandlers + 32 * 16
               ? static_cast<unsigned>((state.rip - kHandlers) / 16)
               : kNoFault;
  }
  /// RIP that the exception pushed.
  uint64_t fault_rip() { return peek<uint64_t>(state.gpr[x86::kRsp] + (has_error_code(fault_vector()) ? 8 : 0)); }

 private:
  static bool has_error_code(unsigned vector) { return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17; }

  /// Each vector's handler is `out 0xf4, al; jmp $`.
  void catch_faults() {
    static constexpr std::array<uint8_t, 4> kHandler{0xe6, 0xf4, 0xeb, 0xfe};
    for (unsigned vector = 0; vector < 32; ++vector) {
      load(kHandlers + 16 * vector, kHandler);
      set_gate_64(vector, kHandlers + 16 * vector);
    }
  }
  uint8_t* xsave() { return reinterpret_cast<uint8_t*>(state.xsave.bytes.data()); }
  void use_components(uint64_t more) {
    uint64_t components;
    std::memcpy(&components, xsave() + x86::XsaveArea::kHeaderOffset, sizeof components);
    components |= more;
    std::memcpy(xsave() + x86::XsaveArea::kHeaderOffset, &components, sizeof components);
  }
};

}  // namespace tenon::interp
