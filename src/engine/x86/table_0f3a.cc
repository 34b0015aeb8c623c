// Three-byte opcodes 0F 3A xx in their legacy encoding.
//
// Source: Intel SDM Vol. 2 Appendix A Table A-5. Not implemented: Key Locker, HRESET (#UD).
#include "engine/x86/decode_table.hh"

namespace tenon::x86 {
namespace {

using enum Op;
using enum Operand;
using F = Feature;

// clang-format off
constexpr MapEntry kEntries[] = {
    // 08-0F
    {0x08, k66, kRoundps, {kVdq, kWdq, kIb}, kWritesOp0 | kSse | kAligned | kFpCompute, F::kSse41},
    {0x09, k66, kRoundpd, {kVdq, kWdq, kIb}, kWritesOp0 | kSse | kAligned | kFpCompute, F::kSse41},
    {0x0A, k66, kRoundss, {kVss, kWss, kIb}, kUpdatesOp0 | kSse | kFpCompute, F::kSse41},
    {0x0B, k66, kRoundsd, {kVsd, kWsd, kIb}, kUpdatesOp0 | kSse | kFpCompute, F::kSse41},
    {0x0C, k66, kBlendps, {kVdq, kWdq, kIb}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x0D, k66, kBlendpd, {kVdq, kWdq, kIb}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x0E, k66, kPblendw, {kVdq, kWdq, kIb}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x0F, kNp, kPalignr, {kPq, kQq, kIb},   kUpdatesOp0 | kMmx, F::kSsse3},
    {0x0F, k66, kPalignr, {kVdq, kWdq, kIb}, kUpdatesOp0 | kSse | kAligned, F::kSsse3},
    // 14-22: insert and extract; PEXTRD and PINSRD are PEXTRQ and PINSRQ with REX.W
    {0x14, k66, kPextrb,    {kEdMb, kVdq, kIb}, kWritesOp0 | kSse, F::kSse41},
    {0x15, k66, kPextrw,    {kEdMw, kVdq, kIb}, kWritesOp0 | kSse, F::kSse41},
    {0x16, k66, kPextrd,    {kEy, kVdq, kIb},   kWritesOp0 | kSse, F::kSse41},
    {0x17, k66, kExtractps, {kEd, kVdq, kIb},   kWritesOp0 | kSse, F::kSse41},
    {0x20, k66, kPinsrb,    {kVdq, kEdMb, kIb}, kUpdatesOp0 | kSse, F::kSse41},
    {0x21, k66, kInsertps,  {kVdq, kWd, kIb},   kUpdatesOp0 | kSse, F::kSse41},
    {0x22, k66, kPinsrd,    {kVdq, kEy, kIb},   kUpdatesOp0 | kSse, F::kSse41},
    // 40-63. The string compares take unaligned memory (SDM Vol. 2 4.1); explicit lengths are in EAX and EDX
    {0x40, k66, kDpps,      {kVdq, kWdq, kIb}, kUpdatesOp0 | kSse | kAligned | kFpCompute, F::kSse41},
    {0x41, k66, kDppd,      {kVdq, kWdq, kIb}, kUpdatesOp0 | kSse | kAligned | kFpCompute, F::kSse41},
    {0x42, k66, kMpsadbw,   {kVdq, kWdq, kIb}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x44, k66, kPclmulqdq, {kVdq, kWdq, kIb}, kUpdatesOp0 | kSse | kAligned, F::kPclmul},
    {0x60, k66, kPcmpestrm, {kVdq, kWdq, kIb}, kReadsOp0 | kSse, kSetsCompare.gpr(kDxAxBits, 0), F::kSse42},
    {0x61, k66, kPcmpestri, {kVdq, kWdq, kIb}, kReadsOp0 | kSse, kSetsCompare.gpr(kDxAxBits, kCxBit), F::kSse42},
    {0x62, k66, kPcmpistrm, {kVdq, kWdq, kIb}, kReadsOp0 | kSse, kSetsCompare, F::kSse42},
    {0x63, k66, kPcmpistri, {kVdq, kWdq, kIb}, kReadsOp0 | kSse, kSetsCompare.gpr(0, kCxBit), F::kSse42},
    // CC-DF: SHA, GFNI, AES
    {0xCC, kNp, kSha1rnds4,        {kVdq, kWdq, kIb}, kUpdatesOp0 | kSse | kAligned, F::kSha},
    {0xCE, k66, kGf2p8affineqb,    {kVdq, kWdq, kIb}, kUpdatesOp0 | kSse | kAligned, F::kGfni},
    {0xCF, k66, kGf2p8affineinvqb, {kVdq, kWdq, kIb}, kUpdatesOp0 | kSse | kAligned, F::kGfni},
    {0xDF, k66, kAeskeygenassist,  {kVdq, kWdq, kIb}, kWritesOp0 | kSse | kAligned, F::kAes},
};
// clang-format on

}  // namespace

constinit const MapTable kTable0F3A = make_table(kEntries);

}  // namespace tenon::x86
