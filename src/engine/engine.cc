#include "engine/engine.hh"

#include <bit>

namespace tenon {

TranslationStats& TranslationStats::operator+=(const TranslationStats& other) {
  using Words = std::array<uint64_t, sizeof(TranslationStats) / sizeof(uint64_t)>;
  auto words = std::bit_cast<Words>(*this);
  const auto others = std::bit_cast<Words>(other);
  for (size_t i = 0; i < words.size(); ++i) words[i] += others[i];
  return *this = std::bit_cast<TranslationStats>(words);
}

Result<void> Engine::add_doorbell(const Doorbell&, const Eventfd&) {
  return fail(ErrorCode::kUnsupported, std::string(name()) + " engine: no in-kernel doorbells");
}

Result<void> Engine::add_interrupt_event(Gsi, const Eventfd&) {
  return fail(ErrorCode::kUnsupported, std::string(name()) + " engine: no in-kernel interrupt events");
}

}  // namespace tenon
