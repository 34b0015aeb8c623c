#include "engine/engine.hh"

namespace tenon {

Result<void> Engine::add_doorbell(const Doorbell&, const Eventfd&) {
  return fail(ErrorCode::kUnsupported, std::string(name()) + " engine: no in-kernel doorbells");
}

Result<void> Engine::add_interrupt_event(Gsi, const Eventfd&) {
  return fail(ErrorCode::kUnsupported, std::string(name()) + " engine: no in-kernel interrupt events");
}

}  // namespace tenon
