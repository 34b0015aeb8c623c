// Which engine runs the guest, by name; "auto" decides by running code, never by the presence of /dev/kvm.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.hh"
#include "engine/engine.hh"

namespace tenon {

struct EngineChoice {
  std::unique_ptr<Engine> engine;
  std::string reason;  // one clause for the start-up line; empty where the user asked for this engine
};

/// `name` is "auto", "kvm" or "interp". "auto" takes KVM where the self-test passes on it and ring 0 runs at least five
/// times as fast as on the interpreter.
Result<EngineChoice> choose_engine(std::string_view name);

}  // namespace tenon
