// Three-byte opcodes 0F 38 xx in their legacy encoding.
//
// Source: Intel SDM Vol. 2 Appendix A Table A-4. Not implemented: CET (WRSS, WRUSS), ENQCMD, Key Locker (#UD).
#include "engine/x86/decode_table.hh"

namespace tenon::x86 {
namespace {

using enum Op;
using enum Operand;
using F = Feature;

// clang-format off
constexpr MapEntry kEntries[] = {
    // 00-1E: SSSE3, blends and PTEST of SSE4.1
    {0x00, kNp, kPshufb,    {kPq, kQq},          kUpdatesOp0 | kMmx, F::kSsse3},
    {0x00, k66, kPshufb,    {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSsse3},
    {0x01, kNp, kPhaddw,    {kPq, kQq},          kUpdatesOp0 | kMmx, F::kSsse3},
    {0x01, k66, kPhaddw,    {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSsse3},
    {0x02, kNp, kPhaddd,    {kPq, kQq},          kUpdatesOp0 | kMmx, F::kSsse3},
    {0x02, k66, kPhaddd,    {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSsse3},
    {0x03, kNp, kPhaddsw,   {kPq, kQq},          kUpdatesOp0 | kMmx, F::kSsse3},
    {0x03, k66, kPhaddsw,   {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSsse3},
    {0x04, kNp, kPmaddubsw, {kPq, kQq},          kUpdatesOp0 | kMmx, F::kSsse3},
    {0x04, k66, kPmaddubsw, {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSsse3},
    {0x05, kNp, kPhsubw,    {kPq, kQq},          kUpdatesOp0 | kMmx, F::kSsse3},
    {0x05, k66, kPhsubw,    {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSsse3},
    {0x06, kNp, kPhsubd,    {kPq, kQq},          kUpdatesOp0 | kMmx, F::kSsse3},
    {0x06, k66, kPhsubd,    {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSsse3},
    {0x07, kNp, kPhsubsw,   {kPq, kQq},          kUpdatesOp0 | kMmx, F::kSsse3},
    {0x07, k66, kPhsubsw,   {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSsse3},
    {0x08, kNp, kPsignb,    {kPq, kQq},          kUpdatesOp0 | kMmx, F::kSsse3},
    {0x08, k66, kPsignb,    {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSsse3},
    {0x09, kNp, kPsignw,    {kPq, kQq},          kUpdatesOp0 | kMmx, F::kSsse3},
    {0x09, k66, kPsignw,    {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSsse3},
    {0x0A, kNp, kPsignd,    {kPq, kQq},          kUpdatesOp0 | kMmx, F::kSsse3},
    {0x0A, k66, kPsignd,    {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSsse3},
    {0x0B, kNp, kPmulhrsw,  {kPq, kQq},          kUpdatesOp0 | kMmx, F::kSsse3},
    {0x0B, k66, kPmulhrsw,  {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSsse3},
    {0x10, k66, kPblendvb,  {kVdq, kWdq, kXmm0}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x14, k66, kBlendvps,  {kVdq, kWdq, kXmm0}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x15, k66, kBlendvpd,  {kVdq, kWdq, kXmm0}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x17, k66, kPtest,     {kVdq, kWdq},        kReadsOp0 | kSse | kAligned, kSetsCompare, F::kSse41},
    {0x1C, kNp, kPabsb,     {kPq, kQq},          kWritesOp0 | kMmx, F::kSsse3},
    {0x1C, k66, kPabsb,     {kVdq, kWdq},        kWritesOp0 | kSse | kAligned, F::kSsse3},
    {0x1D, kNp, kPabsw,     {kPq, kQq},          kWritesOp0 | kMmx, F::kSsse3},
    {0x1D, k66, kPabsw,     {kVdq, kWdq},        kWritesOp0 | kSse | kAligned, F::kSsse3},
    {0x1E, kNp, kPabsd,     {kPq, kQq},          kWritesOp0 | kMmx, F::kSsse3},
    {0x1E, k66, kPabsd,     {kVdq, kWdq},        kWritesOp0 | kSse | kAligned, F::kSsse3},
    // 20-41: SSE4.1 and PCMPGTQ of SSE4.2
    {0x20, k66, kPmovsxbw,   {kVdq, kWq},  kWritesOp0 | kSse, F::kSse41},
    {0x21, k66, kPmovsxbd,   {kVdq, kWd},  kWritesOp0 | kSse, F::kSse41},
    {0x22, k66, kPmovsxbq,   {kVdq, kWw},  kWritesOp0 | kSse, F::kSse41},
    {0x23, k66, kPmovsxwd,   {kVdq, kWq},  kWritesOp0 | kSse, F::kSse41},
    {0x24, k66, kPmovsxwq,   {kVdq, kWd},  kWritesOp0 | kSse, F::kSse41},
    {0x25, k66, kPmovsxdq,   {kVdq, kWq},  kWritesOp0 | kSse, F::kSse41},
    {0x28, k66, kPmuldq,     {kVdq, kWdq}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x29, k66, kPcmpeqq,    {kVdq, kWdq}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x2A, k66, kMovntdqa,   {kVdq, kMdq}, kWritesOp0 | kSse | kAligned, F::kSse41},
    {0x2B, k66, kPackusdw,   {kVdq, kWdq}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x30, k66, kPmovzxbw,   {kVdq, kWq},  kWritesOp0 | kSse, F::kSse41},
    {0x31, k66, kPmovzxbd,   {kVdq, kWd},  kWritesOp0 | kSse, F::kSse41},
    {0x32, k66, kPmovzxbq,   {kVdq, kWw},  kWritesOp0 | kSse, F::kSse41},
    {0x33, k66, kPmovzxwd,   {kVdq, kWq},  kWritesOp0 | kSse, F::kSse41},
    {0x34, k66, kPmovzxwq,   {kVdq, kWd},  kWritesOp0 | kSse, F::kSse41},
    {0x35, k66, kPmovzxdq,   {kVdq, kWq},  kWritesOp0 | kSse, F::kSse41},
    {0x37, k66, kPcmpgtq,    {kVdq, kWdq}, kUpdatesOp0 | kSse | kAligned, F::kSse42},
    {0x38, k66, kPminsb,     {kVdq, kWdq}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x39, k66, kPminsd,     {kVdq, kWdq}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x3A, k66, kPminuw,     {kVdq, kWdq}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x3B, k66, kPminud,     {kVdq, kWdq}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x3C, k66, kPmaxsb,     {kVdq, kWdq}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x3D, k66, kPmaxsd,     {kVdq, kWdq}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x3E, k66, kPmaxuw,     {kVdq, kWdq}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x3F, k66, kPmaxud,     {kVdq, kWdq}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x40, k66, kPmulld,     {kVdq, kWdq}, kUpdatesOp0 | kSse | kAligned, F::kSse41},
    {0x41, k66, kPhminposuw, {kVdq, kWdq}, kWritesOp0 | kSse | kAligned, F::kSse41},
    // 80-82: operand size is that of the mode
    {0x80, k66, kInvept,  {kGnative, kMdq}, kReadsOp0 | kNotReal | kCpl0 | kSerializing, kSetsCompare, F::kVmx},
    {0x81, k66, kInvvpid, {kGnative, kMdq}, kReadsOp0 | kNotReal | kCpl0 | kSerializing, kSetsCompare, F::kVmx},
    {0x82, k66, kInvpcid, {kGnative, kMdq}, kReadsOp0 | kCpl0 | kSerializing, kNoEffects, F::kInvpcid},
    // C8-DF: SHA, GFNI, AES
    {0xC8, kNp, kSha1nexte,   {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSha},
    {0xC9, kNp, kSha1msg1,    {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSha},
    {0xCA, kNp, kSha1msg2,    {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSha},
    {0xCB, kNp, kSha256rnds2, {kVdq, kWdq, kXmm0}, kUpdatesOp0 | kSse | kAligned, F::kSha},
    {0xCC, kNp, kSha256msg1,  {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSha},
    {0xCD, kNp, kSha256msg2,  {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kSha},
    {0xCF, k66, kGf2p8mulb,   {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kGfni},
    {0xDB, k66, kAesimc,      {kVdq, kWdq},        kWritesOp0 | kSse | kAligned, F::kAes},
    {0xDC, k66, kAesenc,      {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kAes},
    {0xDD, k66, kAesenclast,  {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kAes},
    {0xDE, k66, kAesdec,      {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kAes},
    {0xDF, k66, kAesdeclast,  {kVdq, kWdq},        kUpdatesOp0 | kSse | kAligned, F::kAes},
    // F0-F9. With F2, 66 sets the operand size of CRC32's source; its destination is 4 or 8 bytes
    {0xF0, kF2,  kCrc32,     {kGy, kEb},  kUpdatesOp0, F::kSse42},
    {0xF0, kNfx, kMovbe,     {kGv, kMv},  kWritesOp0, F::kMovbe},
    {0xF1, kF2,  kCrc32,     {kGy, kEv},  kUpdatesOp0, F::kSse42},
    {0xF1, kNfx, kMovbe,     {kMv, kGv},  kWritesOp0, F::kMovbe},
    {0xF6, k66,  kAdcx,      {kGy, kEy},  kUpdatesOp0, Effects{kCf, kCf}, F::kAdx},
    {0xF6, kF3,  kAdox,      {kGy, kEy},  kUpdatesOp0, Effects{kOf, kOf}, F::kAdx},
    {0xF8, k66,  kMovdir64b, {kGa, kM64}, kReadsOp0, kNoEffects, F::kMovdir64b},
    {0xF9, kNp,  kMovdiri,   {kMy, kGy},  kWritesOp0, kNoEffects, F::kMovdiri},
};
// clang-format on

}  // namespace

constinit const MapTable kTable0F38 = make_table(kEntries);

}  // namespace tenon::x86
