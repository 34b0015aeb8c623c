// Called with guest vectors in the host's registers: note() is compiled for general registers only, so what may sleep
// is in code_changes_listeners.cc.
#include "vm/code_changes.hh"

namespace tenon {

void CodeChanges::note(Gpa gpa, uint64_t size_bytes, Listener* writer) {
  // Counted before the list is read: remove() unlinks before it looks at the count (both sequentially consistent), so
  // either it waits for us or we do not see what it has removed.
  notifying_.fetch_add(1, std::memory_order_seq_cst);
  if (first_.load(std::memory_order_seq_cst) != nullptr) {
    const uint64_t first = gpa.value() / kGranuleSize;
    const uint64_t count = (gpa.value() + size_bytes - 1) / kGranuleSize - first;
    const uint64_t at = head_.fetch_add(1, std::memory_order_seq_cst);
    lines_[at % kLines].store(lap(at) << kLapShift | count << kCountShift | first, std::memory_order_seq_cst);
    if (writer != nullptr && writer->cursor_ == at) writer->cursor_ = at + 1;
    for (Listener* listener = first_.load(std::memory_order_seq_cst); listener != nullptr;
         listener = listener->next_.load(std::memory_order_seq_cst)) {
      if (listener != writer) listener->poke_->store(1, std::memory_order_seq_cst);
    }
  }
  notifying_.fetch_sub(1, std::memory_order_release);
}

}  // namespace tenon
