// The counters that `--stats` prints, as lines of names and values; how they are said is the Announcer's.
#pragma once

#include <string>
#include <vector>

#include "cli/announcer.hh"
#include "machine/machine.hh"

namespace tenon {

struct StatisticsLine {
  std::string subject;  // "board", "vcpu0", "vcpu0.exits", ...
  std::vector<Announcer::Counter> counters;
};

/// One group of lines for each vCPU and, where there are several, one for their sum ("vcpus"). `seconds` have passed
/// since the machine was started.
std::vector<StatisticsLine> statistics_lines(const MachineStats& stats, double seconds);

}  // namespace tenon
