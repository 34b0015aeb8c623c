// The interpreter as an Engine ("interp"): runs everywhere, complete, and the reference for the others.
#pragma once

#include <memory>

#include "engine/engine.hh"

namespace tenon {

std::unique_ptr<Engine> make_interp_engine();

}  // namespace tenon
