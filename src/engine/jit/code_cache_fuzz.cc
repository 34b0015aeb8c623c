// Random fragments, links and removals in a small code cache, checked against a plain list (code_cache_model.hh).
#include <cstddef>
#include <cstdint>

#include "engine/jit/code_cache_model.hh"
#include "vm/fuzz_input.hh"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tenon::FuzzInput input(data, size);
  tenon::jit::CodeCacheModel model(2 + input.take_below(2));
  while (!input.is_empty()) model.step(input);
  model.check();
  return 0;
}
