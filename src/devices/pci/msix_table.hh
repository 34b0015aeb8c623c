// MsixTable: the vector table and pending-bit array of one function, as the memory BAR that holds them.
//
// Source: PCI Local Bus Specification 3.0 section 6.8.2.
// Layout of the BAR: the table from offset 0, the pending-bit array from the next multiple of 2 KiB after it.
// Threads: notify() and register accesses from any thread, without a lock. An entry is two 64-bit atomics, address and
// data with vector control; software masks an entry before it changes it (6.8.3.5), so a message built from both is
// whole. notify() on a masked vector sets its pending bit and looks at the mask again, unmasking clears the pending bit
// and sends: whichever comes second sends, and only one does.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/result.hh"
#include "spec/pci.hh"
#include "vm/bus.hh"
#include "vm/irq_line.hh"

namespace tenon {

class MsixTable final : public BusHandler {
 public:
  explicit MsixTable(unsigned vector_count);

  unsigned vector_count() const { return vector_count_; }
  uint32_t pending_offset() const { return pending_offset_; }
  /// Of the BAR: a power of two.
  uint64_t size_bytes() const { return size_bytes_; }

  void connect(InterruptSink& sink) { sink_ = &sink; }
  /// From the capability's Enable and Function Mask bits and the Bus Master bit. Sends what has become unmasked.
  void set_state(bool is_enabled, bool is_function_masked);
  bool is_enabled() const { return is_enabled_.load(); }

  /// Sends the message of `vector`, or sets its pending bit where it is masked. Out-of-range vectors are ignored.
  void notify(unsigned vector);

  uint64_t bus_read(uint64_t offset, unsigned size_bytes) override;
  void bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) override;

  void reset();
  /// Per vector: address, data with control, pending.
  struct SavedVector {
    uint64_t address = 0;
    uint64_t data_control = 0;
    bool is_pending = false;
  };
  SavedVector save(unsigned vector) const;
  Result<void> restore(unsigned vector, const SavedVector& saved);

 private:
  struct Entry {
    std::atomic<uint64_t> address{0};
    std::atomic<uint64_t> data_control{0};  // data in [31:0], vector control in [63:32]
  };

  bool is_masked(unsigned vector) const;
  void send(unsigned vector);
  /// Sends `vector` if it is pending and can be sent now.
  void send_pending(unsigned vector);
  uint64_t read_dword(uint64_t offset) const;
  void write_dword(uint64_t offset, uint32_t value);

  const unsigned vector_count_;
  const uint32_t pending_offset_;
  const uint64_t size_bytes_;
  InterruptSink* sink_ = nullptr;
  std::atomic<bool> is_enabled_{false};
  std::atomic<bool> is_function_masked_{false};
  std::unique_ptr<Entry[]> entries_;
  std::unique_ptr<std::atomic<uint32_t>[]> pending_;
};

}  // namespace tenon
