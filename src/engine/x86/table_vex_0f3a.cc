// VEX map 3 (0F 3A): AVX, AVX2, F16C, VPCLMULQDQ, GFNI, BMI2.
//
// Source: Intel SDM Vol. 2 Appendix A Table A-5 and each instruction's page for VEX.L and VEX.W.
#include "engine/x86/decode_table.hh"

namespace tenon::x86 {
namespace {

using enum Op;
using enum Operand;
using F = Feature;

// clang-format off
constexpr MapEntry kEntries[] = {
    // 00-0F
    {0x00, k66, kVpermq,     {kVqq, kWqq, kIb},       kWritesOp0 | kVexVector | kW1 | kL1, F::kAvx2},
    {0x01, k66, kVpermpd,    {kVqq, kWqq, kIb},       kWritesOp0 | kVexVector | kW1 | kL1, F::kAvx2},
    {0x02, k66, kVpblendd,   {kVx, kHx, kWx, kIb},    kWritesOp0 | kVexVector | kW0, F::kAvx2},
    {0x04, k66, kVpermilps,  {kVx, kWx, kIb},         kWritesOp0 | kVexVector | kW0, F::kAvx},
    {0x05, k66, kVpermilpd,  {kVx, kWx, kIb},         kWritesOp0 | kVexVector | kW0, F::kAvx},
    {0x06, k66, kVperm2f128, {kVqq, kHqq, kWqq, kIb}, kWritesOp0 | kVexVector | kW0 | kL1, F::kAvx},
    {0x08, k66, kVroundps,   {kVx, kWx, kIb},         kWritesOp0 | kVexVector | kFpCompute, F::kAvx},
    {0x09, k66, kVroundpd,   {kVx, kWx, kIb},         kWritesOp0 | kVexVector | kFpCompute, F::kAvx},
    {0x0A, k66, kVroundss,   {kVss, kHss, kWss, kIb}, kWritesOp0 | kVexVector | kFpCompute, F::kAvx},
    {0x0B, k66, kVroundsd,   {kVsd, kHsd, kWsd, kIb}, kWritesOp0 | kVexVector | kFpCompute, F::kAvx},
    {0x0C, k66, kVblendps,   {kVx, kHx, kWx, kIb},    kWritesOp0 | kVexVector, F::kAvx},
    {0x0D, k66, kVblendpd,   {kVx, kHx, kWx, kIb},    kWritesOp0 | kVexVector, F::kAvx},
    {0x0E, k66, kVpblendw,   {kVx, kHx, kWx, kIb},    kWritesOp0 | kVexVector, F::kAvx, F::kAvx2},
    {0x0F, k66, kVpalignr,   {kVx, kHx, kWx, kIb},    kWritesOp0 | kVexVector, F::kAvx, F::kAvx2},
    // 14-22: VPEXTRD and VPINSRD are VPEXTRQ and VPINSRQ with VEX.W in 64-bit mode
    {0x14, k66, kVpextrb,      {kEdMb, kVdq, kIb},       kWritesOp0 | kVexVector | kL0, F::kAvx},
    {0x15, k66, kVpextrw,      {kEdMw, kVdq, kIb},       kWritesOp0 | kVexVector | kL0, F::kAvx},
    {0x16, k66, kVpextrd,      {kEy, kVdq, kIb},         kWritesOp0 | kVexVector | kL0, F::kAvx},
    {0x17, k66, kVextractps,   {kEd, kVdq, kIb},         kWritesOp0 | kVexVector | kL0, F::kAvx},
    {0x18, k66, kVinsertf128,  {kVqq, kHqq, kWdq, kIb},  kWritesOp0 | kVexVector | kW0 | kL1, F::kAvx},
    {0x19, k66, kVextractf128, {kWdq, kVqq, kIb},        kWritesOp0 | kVexVector | kW0 | kL1, F::kAvx},
    {0x1D, k66, kVcvtps2ph,    {kWhalf, kVx, kIb},       kWritesOp0 | kVexVector | kW0 | kFpCompute, F::kF16c},
    {0x20, k66, kVpinsrb,      {kVdq, kHdq, kEdMb, kIb}, kWritesOp0 | kVexVector | kL0, F::kAvx},
    {0x21, k66, kVinsertps,    {kVdq, kHdq, kWd, kIb},   kWritesOp0 | kVexVector | kL0, F::kAvx},
    {0x22, k66, kVpinsrd,      {kVdq, kHdq, kEy, kIb},   kWritesOp0 | kVexVector | kL0, F::kAvx},
    // 38-4C
    {0x38, k66, kVinserti128,  {kVqq, kHqq, kWdq, kIb}, kWritesOp0 | kVexVector | kW0 | kL1, F::kAvx2},
    {0x39, k66, kVextracti128, {kWdq, kVqq, kIb},       kWritesOp0 | kVexVector | kW0 | kL1, F::kAvx2},
    {0x40, k66, kVdpps,        {kVx, kHx, kWx, kIb},    kWritesOp0 | kVexVector | kFpCompute, F::kAvx},
    {0x41, k66, kVdppd,        {kVdq, kHdq, kWdq, kIb}, kWritesOp0 | kVexVector | kL0 | kFpCompute, F::kAvx},
    {0x42, k66, kVmpsadbw,     {kVx, kHx, kWx, kIb},    kWritesOp0 | kVexVector, F::kAvx, F::kAvx2},
    {0x44, k66, kVpclmulqdq,   {kVx, kHx, kWx, kIb},    kWritesOp0 | kVexVector, F::kPclmul, F::kVpclmul},
    {0x46, k66, kVperm2i128,   {kVqq, kHqq, kWqq, kIb}, kWritesOp0 | kVexVector | kW0 | kL1, F::kAvx2},
    {0x4A, k66, kVblendvps,    {kVx, kHx, kWx, kLx},    kWritesOp0 | kVexVector | kW0, F::kAvx},
    {0x4B, k66, kVblendvpd,    {kVx, kHx, kWx, kLx},    kWritesOp0 | kVexVector | kW0, F::kAvx},
    {0x4C, k66, kVpblendvb,    {kVx, kHx, kWx, kLx},    kWritesOp0 | kVexVector | kW0, F::kAvx, F::kAvx2},
    // 60-63: string compares; lengths of the explicit forms are in EAX and EDX
    {0x60, k66, kVpcmpestrm, {kVdq, kWdq, kIb}, kReadsOp0 | kVexVector | kL0, kSetsCompare.gpr(kDxAxBits, 0), F::kAvx},
    {0x61, k66, kVpcmpestri, {kVdq, kWdq, kIb}, kReadsOp0 | kVexVector | kL0,
     kSetsCompare.gpr(kDxAxBits, kCxBit), F::kAvx},
    {0x62, k66, kVpcmpistrm, {kVdq, kWdq, kIb}, kReadsOp0 | kVexVector | kL0, kSetsCompare, F::kAvx},
    {0x63, k66, kVpcmpistri, {kVdq, kWdq, kIb}, kReadsOp0 | kVexVector | kL0, kSetsCompare.gpr(0, kCxBit), F::kAvx},
    // CE-F0
    {0xCE, k66, kVgf2p8affineqb,    {kVx, kHx, kWx, kIb}, kWritesOp0 | kVexVector | kW1, F::kGfni},
    {0xCF, k66, kVgf2p8affineinvqb, {kVx, kHx, kWx, kIb}, kWritesOp0 | kVexVector | kW1, F::kGfni},
    {0xDF, k66, kVaeskeygenassist,  {kVdq, kWdq, kIb},    kWritesOp0 | kVexVector | kL0, F::kAes},
    {0xF0, kF2, kRorx,              {kGy, kEy, kIb},      kWritesOp0 | kVexInteger | kL0, F::kBmi2},
};
// clang-format on

}  // namespace

constinit const MapTable kTableVex0F3A = make_table(kEntries);

}  // namespace tenon::x86
