// TraceCache: decoded guest code of one vCPU.
//
// A trace is a straight run of up to 32 instructions inside one physical page, decoded once and kept under (physical
// address, code size, single-step). A direct-mapped front cache by linear address answers the run loop; what it says
// holds until the translation of code is forgotten (a generation in the stamp) or the bytes changed (a version in
// CodeWatch). A trace of a changed page is compared with the bytes it was made from and kept where they are the same,
// so a kernel that patches one instruction of a page costs little.
//
// Self-modifying code: before bytes are decoded their granules are set in CodeWatch and no write-TLB entry for the page
// is left in any vCPU (Safepoint::set_code_granules), so each store to the page takes the slow path and calls
// code_written(), which grows the version and makes the running trace leave. A page that is mostly stored to loses its
// granules again.
//
// Threads: the vCPU's own; shared is only CodeWatch. Memory is bounded: a full arena is emptied.
// Source: SDM Vol. 3 9.1.3 (self- and cross-modifying code), 12.6.
#pragma once

#include <array>
#include <atomic>
#include <bitset>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/interp/cpu.hh"

namespace tenon::interp {

constexpr unsigned kTraceStepsMax = 32;

/// Which of several traces at one address: bits of the key beyond the address.
enum class TraceKind : uint8_t { kNormal, kSingle };

struct alignas(64) Trace {
  CodeWatch::Page* page = nullptr;  // of the first byte
  uint64_t version = 0;             // of `page` when the bytes were read
  uint64_t gpa = 0;                 // of the first byte
  Trace* next_in_bucket = nullptr;
  CodeWatch::Page* second_page = nullptr;  // where one instruction crosses into another page, else nullptr
  uint64_t second_version = 0;
  uint64_t second_gpa = 0;
  uint16_t size_bytes = 0;
  uint8_t instructions = 0;
  uint8_t step_count = 0;  // instructions, helper steps and the end step
  x86::CodeSize code_size = x86::CodeSize::k16;
  TraceKind kind = TraceKind::kNormal;
  bool poisoned = false;  // its handlers were replaced: never to be entered again

  Step* steps() { return reinterpret_cast<Step*>(this + 1); }
  const Step* steps() const { return reinterpret_cast<const Step*>(this + 1); }
  uint8_t* bytes() { return reinterpret_cast<uint8_t*>(steps() + step_count); }
};
static_assert(sizeof(Trace) == 64);

class TraceCache {
 public:
  /// `arena_bytes_max` bounds the memory of decoded code.
  explicit TraceCache(size_t arena_bytes_max = size_t{64} << 20);
  TraceCache(const TraceCache&) = delete;
  TraceCache& operator=(const TraceCache&) = delete;

  /// The trace at cpu.rip from the front cache, or nullptr.
  [[gnu::always_inline]] Trace* find_hot(const Cpu& cpu) const {
    const uint64_t linear = (cpu.rip + cpu.code_base) & cpu.linear_mask;
    const FrontEntry& entry = front_[front_index(linear)];
    if (entry.linear != linear || entry.stamp != stamps_[linear >> 63]) [[unlikely]]
      return nullptr;
    Trace* trace = entry.trace;
    if (trace->page->version.load(std::memory_order_acquire) != trace->version) [[unlikely]]
      return nullptr;
    return trace;
  }

  /// Finds or builds it. nullptr: a fault of the fetch is pending, with rip at the instruction.
  Trace* find(Cpu& cpu);
  /// One instruction at cpu.rip, for single-stepping.
  Trace* find_single(Cpu& cpu);

  /// The trace being executed; code_written() may poison it.
  Trace* running = nullptr;

  // Behind the Cpu members of the same purpose.
  /// `context` is SoftTlb::context(): translations of code in it stay where it is entered again, all others go.
  void forget_translations(bool keep_global, uint64_t context);
  void forget_translation(uint64_t linear, uint64_t size_bytes);
  /// Single translations of a context that is not the current one were dropped.
  void forget_context(uint64_t context);
  void context_changed(const Cpu& cpu);
  void code_written(Cpu& cpu, Gpa gpa, uint64_t size_bytes);

 private:
  static constexpr unsigned kFrontEntries = 1u << 14;
  static constexpr unsigned kBuckets = 1u << 16;
  static constexpr unsigned kFetchEntries = 256;
  static constexpr unsigned kPageFilterBits = 4096;
  static constexpr size_t kChunkBytes = size_t{1} << 20;
  static constexpr unsigned kContexts = 8;       // address spaces whose translations of code are kept
  static constexpr unsigned kStoresToData = 64;  // stores to a code page after which it counts as data

  struct FrontEntry {
    uint64_t linear = 0;
    uint64_t stamp = 0;
    Trace* trace = nullptr;
    uint64_t unused = 0;
  };
  /// Translation of one page of code.
  struct FetchEntry {
    uint64_t page = ~uint64_t{0};
    uint64_t stamp = 0;
    uint64_t gpa = 0;
  };
  /// What is known about one half of the linear address space. stamp = generation << 8 | no front cache << 3 | CPL 3 <<
  /// 2 | code size; what carries another stamp does not count.
  struct Half {
    uint64_t generation = 0;
    uint64_t context = 0;                     // of the soft TLB, for the lower half; 0: none
    bool has_local = false;                   // some translation is not global
    bool has_global = false;                  // some is
    std::bitset<kPageFilterBits> pages_seen;  // linear pages (hashed) whose translation an entry relies on
  };
  struct Source;   // bytes of guest code and where they came from (trace_cache.cc)
  struct Decoded;  // the instructions in them

  static unsigned front_index(uint64_t linear) {
    return static_cast<unsigned>(linear ^ (linear >> 14) ^ (linear >> 28)) % kFrontEntries;
  }
  static unsigned bucket_index(uint64_t gpa) {
    return static_cast<unsigned>((gpa * 0x9e3779b97f4a7c15) >> 32) % kBuckets;
  }

  Trace* find_kind(Cpu& cpu, TraceKind kind);
  bool translate(Cpu& cpu, uint64_t linear, uint64_t& gpa);
  Trace* find_kept(Cpu& cpu, const Source& source, TraceKind kind, bool& faulted);
  bool revalidate(Cpu& cpu, Trace& trace);
  Trace* build(Cpu& cpu, Source& source, TraceKind kind);
  bool read_source(Cpu& cpu, Source& source);
  bool watch_source(Cpu& cpu, Source& source, unsigned size_bytes);
  Trace* assemble(Cpu& cpu, const Source& source, const Decoded& decoded, TraceKind kind);
  uint64_t watch(Cpu& cpu, CodeWatch::Page& page, uint64_t gpa, uint64_t size_bytes);
  CodeWatch::Page* page_of(const Cpu& cpu, uint64_t gpa);
  void* allocate(size_t size_bytes);
  bool counts_as_data(CodeWatch::Page& page);
  void give_up_code(Cpu& cpu, CodeWatch::Page& page, Gpa start);
  void start_over(Half& half);
  void enter_context(uint64_t context);
  void update_stamps();

  std::vector<FrontEntry> front_;
  std::vector<Trace*> buckets_;
  std::array<FetchEntry, kFetchEntries> fetch_{};
  uint64_t stamps_[2] = {};
  uint64_t stamp_low_ = 0;                // the part of the stamps that depends on CS and CPL
  std::array<Half, kContexts> contexts_;  // lower halves: Linux keeps its processes there
  Half upper_;
  Half* halves_[2] = {&contexts_[0], &upper_};  // by bit 63 of the linear address
  unsigned next_context_ = 0;                   // of contexts_, to be replaced
  uint64_t generation_last_ = 0;
  std::vector<std::unique_ptr<std::byte[]>> chunks_;
  size_t chunk_used_ = kChunkBytes;  // of the last chunk
  size_t chunks_max_;
  std::array<std::pair<CodeWatch::Page*, unsigned>, 16>
      data_stores_{};          // stores to a code page since its granules were set
  CodeWatch::Page no_page_{};  // stands for pages outside RAM, whose bytes never change
};

/// Ends every trace: leaves to the instruction after the last one.
void end_of_trace(Cpu& cpu, const Step* step);

}  // namespace tenon::interp
