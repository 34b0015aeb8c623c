#include <array>

#include "engine/interp/families.hh"
#include "engine/interp/integer_families.hh"

namespace tenon::interp {

Handler integer_handler(const Insn& insn, x86::CodeSize code_size) {
  using Family = Handler (*)(const Insn&, x86::CodeSize);
  static constexpr std::array<Family, 10> kFamilies = {
      alu_handler, move_handler,   branch_handler,   stack_handler,    shift_handler,
      bit_handler, string_handler, exchange_handler, multiply_handler, flags_handler,
  };
  for (const Family family : kFamilies) {
    if (const Handler handler = family(insn, code_size)) return handler;
  }
  return nullptr;
}

}  // namespace tenon::interp
