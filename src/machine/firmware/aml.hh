// A small AML encoder: each function returns one encoded object; objects nest by value.
//
// Source: ACPI 6.4 chapter 20 (encoding) and 6.4 (resource descriptors). Just what our DSDT needs.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "vm/address.hh"

namespace tenon::aml {

/// Encoded AML.
using Code = std::vector<uint8_t>;

Code concatenate(std::span<const Code> parts);

Code integer(uint64_t value);
Code string(std::string_view text);
/// A name string: "\\_SB", "_SB.PCI0", "PCI0"; segments shorter than four characters are padded with '_'.
Code path(std::string_view name);
/// The compressed form of a PNP ID such as "PNP0A08" (6.1.5).
Code eisa_id(std::string_view id);
/// A UUID in the mixed-endian form of ToUUID (19.6.142).
Code uuid(std::string_view text);

Code name(std::string_view object, const Code& value);
Code scope(std::string_view where, std::initializer_list<Code> children);
Code scope(std::string_view where, std::span<const Code> children);
Code device(std::string_view object, std::initializer_list<Code> children);
Code method(std::string_view object, unsigned arguments, std::initializer_list<Code> body);
Code package(std::span<const Code> elements);
Code package(std::initializer_list<Code> elements);
Code buffer(std::span<const uint8_t> bytes);

Code argument(unsigned n);
Code return_value(const Code& value);
Code if_then(const Code& condition, std::initializer_list<Code> body);
Code else_do(std::initializer_list<Code> body);
Code equal(const Code& a, const Code& b);
Code bit_and(const Code& a, const Code& b, const Code& target);
Code bit_or(const Code& a, const Code& b, const Code& target);
/// CreateDWordField(source, byte offset, name).
Code dword_field(const Code& source, uint64_t offset, std::string_view object);

/// A Buffer with the given resource descriptors and the end tag.
Code resource_template(std::initializer_list<Code> resources);
Code io_ports(uint16_t base, uint8_t count);               // 6.4.2.5
Code irq(uint8_t number);                                  // 6.4.2.1, edge-triggered, active high
Code fixed_memory_32(uint32_t base, uint32_t size_bytes);  // 6.4.3.4
Code bus_numbers(uint16_t first, uint16_t last);           // 6.4.3.5.3, produced by a bridge
Code io_window(uint16_t first, uint16_t last);
Code memory_window_32(GpaRange range);  // 6.4.3.5.2
Code memory_window_64(GpaRange range);  // 6.4.3.5.1

}  // namespace tenon::aml
