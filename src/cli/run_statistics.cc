#include "cli/run_statistics.hh"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace tenon {

namespace {

using Counters = std::vector<Announcer::Counter>;

double ratio(uint64_t a, uint64_t b) { return b == 0 ? 0 : static_cast<double>(a) / static_cast<double>(b); }

Counters general(const VcpuStats& vcpu, double seconds) {
  const double rate = seconds > 0 ? static_cast<double>(vcpu.instructions) / seconds : 0;
  return {{"instructions", vcpu.instructions},    {"instructions_per_second", static_cast<uint64_t>(rate)},
          {"port_accesses", vcpu.port_accesses},  {"mmio_accesses", vcpu.mmio_accesses},
          {"interrupts", vcpu.interrupts},        {"halts", vcpu.halts},
          {"tlb_misses", vcpu.tlb_misses},        {"tlb_walks", vcpu.tlb_walks},
          {"traces_decoded", vcpu.traces_decoded}};
}

Counters translations(const TranslationStats& stats) {
  const double ns = ratio(stats.translation_ns, stats.instructions_translated);
  return {{"fragments", stats.fragments_made},
          {"guest_instructions", stats.instructions_translated},
          {"guest_bytes", stats.guest_bytes_translated},
          {"code_bytes", stats.code_bytes_made},
          {"expansion", ratio(stats.code_bytes_made, stats.guest_bytes_translated)},
          {"ns", stats.translation_ns},
          {"ns_per_instruction", ns},
          {"ns_per_5_instructions", 5 * ns},
          {"untranslatable", stats.untranslatable}};
}

Counters cache(const TranslationStats& stats) {
  return {{"fragments", stats.fragments},
          {"code_bytes", stats.code_bytes},
          {"links", stats.links},
          {"guarded_links", stats.guarded_links},
          {"evicted", stats.fragments_evicted},
          {"invalidated", stats.fragments_invalidated}};
}

Counters exits(const TranslationStats& stats) {
  return {{"link", stats.exits_link},
          {"poll", stats.exits_poll},
          {"indirect", stats.exits_indirect},
          {"interpreted", stats.exits_interpret},
          {"slow_access", stats.exits_slow_access},
          {"host_fault", stats.exits_host_fault},
          {"look_ups", stats.look_ups}};
}

Counters lockstep(const TranslationStats& stats) {
  return {{"blocks_compared", stats.blocks_compared},
          {"instructions_compared", stats.instructions_compared},
          {"blocks_not_compared", stats.blocks_not_compared}};
}

Counters interpreted(const VcpuStats& vcpu) {
  Counters counters;
  for (const OperationCount& operation : vcpu.interpreted)
    if (operation.name != nullptr) counters.push_back({operation.name, operation.count});
  return counters;
}

void add(VcpuStats& sum, const VcpuStats& vcpu) {
  sum.instructions += vcpu.instructions;
  sum.port_accesses += vcpu.port_accesses;
  sum.mmio_accesses += vcpu.mmio_accesses;
  sum.interrupts += vcpu.interrupts;
  sum.halts += vcpu.halts;
  sum.tlb_misses += vcpu.tlb_misses;
  sum.tlb_walks += vcpu.tlb_walks;
  sum.traces_decoded += vcpu.traces_decoded;
  sum.translation += vcpu.translation;
}

/// Of what is among the first of each vCPU; what is nowhere among them is missing.
void add_interpreted(VcpuStats& sum, const std::vector<VcpuStats>& vcpus) {
  std::map<std::string_view, OperationCount> counts;
  for (const VcpuStats& vcpu : vcpus) {
    for (const OperationCount& operation : vcpu.interpreted) {
      if (operation.name == nullptr) continue;
      OperationCount& count = counts[operation.name];
      count = {operation.name, count.count + operation.count};
    }
  }
  std::vector<OperationCount> sorted;
  for (const auto& [name, count] : counts) sorted.push_back(count);
  std::ranges::sort(sorted, std::ranges::greater(), &OperationCount::count);
  sorted.resize(std::min(sorted.size(), sum.interpreted.size()));
  std::ranges::copy(sorted, sum.interpreted.begin());
}

void append(std::vector<StatisticsLine>& lines, const std::string& subject, const VcpuStats& vcpu, double seconds) {
  lines.push_back({subject, general(vcpu, seconds)});
  if (vcpu.translation.look_ups == 0) return;  // an engine that translates nothing
  lines.push_back({subject + ".translations", translations(vcpu.translation)});
  lines.push_back({subject + ".cache", cache(vcpu.translation)});
  lines.push_back({subject + ".exits", exits(vcpu.translation)});
  if (vcpu.translation.blocks_compared != 0) lines.push_back({subject + ".lockstep", lockstep(vcpu.translation)});
  if (Counters counters = interpreted(vcpu); !counters.empty())
    lines.push_back({subject + ".interpreted", std::move(counters)});
}

}  // namespace

std::vector<StatisticsLine> statistics_lines(const MachineStats& stats, double seconds) {
  std::vector<StatisticsLine> lines = {{"board",
                                        {{"unclaimed_port_accesses", stats.unclaimed_port_accesses},
                                         {"unclaimed_mmio_accesses", stats.unclaimed_mmio_accesses},
                                         {"resets", stats.resets},
                                         {"seconds", seconds}}}};
  VcpuStats sum;
  for (size_t i = 0; i < stats.vcpus.size(); ++i) {
    append(lines, fmt::format("vcpu{}", i), stats.vcpus[i], seconds);
    add(sum, stats.vcpus[i]);
  }
  if (stats.vcpus.size() < 2) return lines;
  add_interpreted(sum, stats.vcpus);
  append(lines, "vcpus", sum, seconds);
  return lines;
}

}  // namespace tenon
