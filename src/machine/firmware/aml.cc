#include "machine/firmware/aml.hh"

#include <string>

#include "base/check.hh"
#include "spec/acpi.hh"

namespace tenon::aml {

namespace {

using namespace acpi::aml;

void append(Code& code, std::span<const uint8_t> more) {
  for (const uint8_t byte : more) code.push_back(byte);
}

void append_le(Code& code, uint64_t value, unsigned size_bytes) {
  for (unsigned i = 0; i < size_bytes; ++i) code.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

/// PkgLength (20.2.4) of `size_bytes` of content; the length counts its own bytes.
Code package_length(size_t size_bytes) {
  constexpr size_t kOneByteMax = 0x3f;
  if (size_bytes + 1 <= kOneByteMax) return {static_cast<uint8_t>(size_bytes + 1)};
  unsigned extra = 1;
  while (size_bytes + 1 + extra >= size_t{1} << (4 + 8 * extra)) ++extra;
  CHECK(extra <= 3);
  const size_t length = size_bytes + 1 + extra;
  Code code = {static_cast<uint8_t>(extra << 6 | (length & 0xf))};
  append_le(code, length >> 4, extra);
  return code;
}

/// Opcode, PkgLength, `head`, then the parts.
Code block(std::initializer_list<uint8_t> opcode, const Code& head, std::span<const Code> parts) {
  Code content = head;
  append(content, concatenate(parts));
  Code code(opcode);
  append(code, package_length(content.size()));
  append(code, content);
  return code;
}

std::span<const Code> as_span(std::initializer_list<Code> list) { return {list.begin(), list.size()}; }

Code binary(Opcode opcode, const Code& a, const Code& b, const Code& target) {
  Code code = {opcode};
  append(code, a);
  append(code, b);
  append(code, target);
  return code;
}

unsigned hex_digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  return static_cast<unsigned>((c | 0x20) - 'a' + 10);
}

/// Address space descriptor (6.4.3.5): min and max fixed, produced for the children of a bridge.
Code address_space(uint8_t tag, uint8_t resource_type, uint8_t type_flags, uint64_t first, uint64_t last,
                   unsigned width) {
  constexpr uint8_t kMinMaxFixed = 0x0c;  // table 6-49: _MAF, _MIF; bit 0 clear: resource producer
  Code code = {tag};
  append_le(code, 3 + 5 * width, 2);
  append(code, Code{resource_type, kMinMaxFixed, type_flags});
  append_le(code, 0, width);  // granularity
  append_le(code, first, width);
  append_le(code, last, width);
  append_le(code, 0, width);  // translation
  append_le(code, last - first + 1, width);
  return code;
}

constexpr uint8_t kMemory = 0;
constexpr uint8_t kIo = 1;
constexpr uint8_t kBus = 2;
constexpr uint8_t kReadWrite = 1;    // _RW, not cacheable
constexpr uint8_t kEntireRange = 3;  // ISA and non-ISA I/O

}  // namespace

Code concatenate(std::span<const Code> parts) {
  Code code;
  for (const Code& part : parts) append(code, part);
  return code;
}

Code integer(uint64_t value) {
  if (value == 0) return {kZero};
  if (value == 1) return {kOne};
  Code code;
  const unsigned size_bytes = value <= 0xff ? 1 : value <= 0xffff ? 2 : value <= 0xffffffff ? 4 : 8;
  code.push_back(size_bytes == 1   ? kBytePrefix
                 : size_bytes == 2 ? kWordPrefix
                 : size_bytes == 4 ? kDwordPrefix
                                   : kQwordPrefix);
  append_le(code, value, size_bytes);
  return code;
}

Code string(std::string_view text) {
  Code code = {kString};
  for (const char c : text) code.push_back(static_cast<uint8_t>(c));
  code.push_back(0);
  return code;
}

Code path(std::string_view text) {
  Code code;
  while (!text.empty() && (text.front() == '\\' || text.front() == '^')) {
    code.push_back(static_cast<uint8_t>(text.front()));
    text.remove_prefix(1);
  }
  std::vector<std::string> segments;
  while (!text.empty()) {
    const size_t dot = text.find('.');
    std::string segment(text.substr(0, dot));
    CHECK(segment.size() <= 4);
    segment.resize(4, '_');
    segments.push_back(segment);
    text = dot == std::string_view::npos ? std::string_view() : text.substr(dot + 1);
  }
  if (segments.empty()) code.push_back(0);
  if (segments.size() == 2) code.push_back(kDualName);
  if (segments.size() > 2) append(code, Code{uint8_t{kMultiName}, static_cast<uint8_t>(segments.size())});
  for (const std::string& segment : segments) {
    for (const char c : segment) code.push_back(static_cast<uint8_t>(c));
  }
  return code;
}

Code eisa_id(std::string_view id) {
  CHECK(id.size() == 7);
  const auto letter = [&id](size_t i) { return static_cast<unsigned>(id[i] - 0x40) & 0x1f; };
  const unsigned maker = letter(0) << 10 | letter(1) << 5 | letter(2);
  const unsigned product = hex_digit(id[3]) << 12 | hex_digit(id[4]) << 8 | hex_digit(id[5]) << 4 | hex_digit(id[6]);
  // Stored big-endian inside a little-endian DWORD.
  return {kDwordPrefix, static_cast<uint8_t>(maker >> 8), static_cast<uint8_t>(maker),
          static_cast<uint8_t>(product >> 8), static_cast<uint8_t>(product)};
}

Code uuid(std::string_view text) {
  CHECK(text.size() == 36);
  Code bytes;
  for (size_t i = 0; i < text.size(); i += 2) {
    if (text[i] == '-') ++i;
    bytes.push_back(static_cast<uint8_t>(hex_digit(text[i]) << 4 | hex_digit(text[i + 1])));
  }
  // The first three groups are little-endian (table 19-37).
  const Code mixed = {bytes[3], bytes[2], bytes[1],  bytes[0],  bytes[5],  bytes[4],  bytes[7],  bytes[6],
                      bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13], bytes[14], bytes[15]};
  return buffer(mixed);
}

Code name(std::string_view object, const Code& value) {
  Code code = {kName};
  append(code, path(object));
  append(code, value);
  return code;
}

Code scope(std::string_view where, std::initializer_list<Code> children) { return scope(where, as_span(children)); }
Code scope(std::string_view where, std::span<const Code> children) { return block({kScope}, path(where), children); }

Code device(std::string_view object, std::initializer_list<Code> children) {
  return block({kExtended, kDevice}, path(object), as_span(children));
}

Code method(std::string_view object, unsigned arguments, std::initializer_list<Code> body) {
  Code head = path(object);
  head.push_back(static_cast<uint8_t>(arguments));
  return block({kMethod}, head, as_span(body));
}

Code package(std::span<const Code> elements) {
  CHECK(elements.size() <= 255);
  return block({kPackage}, {static_cast<uint8_t>(elements.size())}, elements);
}
Code package(std::initializer_list<Code> elements) { return package(as_span(elements)); }

Code buffer(std::span<const uint8_t> bytes) {
  Code content = integer(bytes.size());
  append(content, bytes);
  return block({kBuffer}, content, {});
}

Code argument(unsigned n) { return {static_cast<uint8_t>(kArg0 + n)}; }

Code return_value(const Code& value) {
  Code code = {kReturn};
  append(code, value);
  return code;
}

Code if_then(const Code& condition, std::initializer_list<Code> body) { return block({kIf}, condition, as_span(body)); }
Code else_do(std::initializer_list<Code> body) { return block({kElse}, {}, as_span(body)); }

Code equal(const Code& a, const Code& b) { return binary(kEqual, a, b, {}); }
Code bit_and(const Code& a, const Code& b, const Code& target) { return binary(kAnd, a, b, target); }
Code bit_or(const Code& a, const Code& b, const Code& target) { return binary(kOr, a, b, target); }

Code dword_field(const Code& source, uint64_t offset, std::string_view object) {
  return binary(kCreateDwordField, source, integer(offset), path(object));
}

Code resource_template(std::initializer_list<Code> resources) {
  Code bytes = concatenate(as_span(resources));
  append(bytes, Code{0x79, 0x00});  // end tag (6.4.2.9); checksum 0 is taken as right
  return buffer(bytes);
}

Code io_ports(uint16_t base, uint8_t count) {
  Code code = {0x47, 0x01};  // decodes all 16 address bits
  append_le(code, base, 2);
  append_le(code, base, 2);
  append(code, Code{0x01, count});
  return code;
}

Code irq(uint8_t number) {
  Code code = {0x22};
  append_le(code, uint64_t{1} << number, 2);
  return code;
}

Code fixed_memory_32(uint32_t base, uint32_t size_bytes) {
  Code code = {0x86, 0x09, 0x00, 0x01};
  append_le(code, base, 4);
  append_le(code, size_bytes, 4);
  return code;
}

Code bus_numbers(uint16_t first, uint16_t last) { return address_space(0x88, kBus, 0, first, last, 2); }
Code io_window(uint16_t first, uint16_t last) { return address_space(0x88, kIo, kEntireRange, first, last, 2); }

Code memory_window_32(GpaRange range) {
  return address_space(0x87, kMemory, kReadWrite, range.base.value(), range.base.value() + range.size_bytes - 1, 4);
}
Code memory_window_64(GpaRange range) {
  return address_space(0x8a, kMemory, kReadWrite, range.base.value(), range.base.value() + range.size_bytes - 1, 8);
}

}  // namespace tenon::aml
