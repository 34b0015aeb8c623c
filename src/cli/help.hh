// Help texts, generated from the command table.
#pragma once

#include <string>

#include "cli/command_table.hh"

namespace tenon {

std::string version_text();
std::string overview_text();
std::string verb_help_text(const VerbRow& verb);

}  // namespace tenon
