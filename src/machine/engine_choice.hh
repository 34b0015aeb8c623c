// Which engine runs the guest, by name; "auto" decides by running code, never by the presence of /dev/kvm.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.hh"
#include "engine/engine.hh"

namespace tenon {

struct EngineRequest {
  std::string name = "auto";        // "auto", "kvm", "jit" or "interp"
  std::string options;              // for the JIT engine, see parse_jit_options(); others do not look at them
  bool count_instructions = false;  // where the engine can but would rather not
};

struct EngineChoice {
  std::unique_ptr<Engine> engine;
  std::string reason;  // one clause for the start-up line; empty where the user asked for this engine
};

/// "auto" takes KVM where the self-test passes on it and ring 0 runs at least five times as fast as on the interpreter;
/// else the JIT engine, or the interpreter where the host's processor lacks what the JIT engine needs.
Result<EngineChoice> choose_engine(const EngineRequest& request);

}  // namespace tenon
