// Op: what an instruction does, one enumerator per mnemonic (SDM Vol. 2 chapters 3 to 5; x87 aliases: AMD APM Vol. 3).
//
// One Op stands for several mnemonics where only a condition or a size differs, so that a handler is written once:
//   kJcc, kSetcc, kCmovcc     condition = low nibble of Insn::opcode
//   kMovs kStos kLods kScas kCmps kIns kOuts    size from the operand form (kXb/kXv, kYb/kYv)
//   kCbw (CBW, CWDE, CDQE), kCwd (CWD, CDQ, CQO), kPusha, kPopa, kPushf, kPopf, kIret, kEnter    by operand size
//   kJcxz, kLoop*             counter width by address size
//   kMovd, kPinsrd, kPextrd (and V forms)       MOVQ, PINSRQ, PEXTRQ with REX.W/VEX.W: operand kEy says the size
//   kFxsave, kFxrstor, kXsave...                the "64" forms by kPrefixRexW
//   kNop                      0F 1F, the reserved hint space 0F 18 to 0F 1F, ENDBR, and 90h without REX.B
// MMX and XMM forms of one mnemonic share an Op (operands tell); VEX forms are Ops of their own (kV...), because they
// zero the upper bits and have three operands. x87 aliases (FCOM2, FXCH4, ...) decode to the documented Op.
//
// Not implemented: EVEX, XOP, 3DNow!, TSX, SGX, CET, MPX, Key Locker, AMX: their encodings are kInvalid (or NOP where a
// processor without the feature executes them as NOP).
#pragma once

#include <cstdint>

namespace tenon::x86 {

// clang-format off

/// General-purpose instructions (SDM Vol. 2, any mode).
#define TENON_X86_OPS_GENERAL(X) \
  X(Aaa) X(Aad) X(Aam) X(Aas) X(Adc) X(Add) X(And) X(Arpl) X(Bound) X(Bsf) X(Bsr) X(Bswap) X(Bt) X(Btc) X(Btr) \
  X(Bts) X(Call) X(CallFar) X(Cbw) X(Clc) X(Cld) X(Cmc) X(Cmovcc) X(Cmp) X(Cmps) X(Cmpxchg) X(Cmpxchg8b) \
  X(Cmpxchg16b) X(Cpuid) X(Cwd) X(Daa) X(Das) X(Dec) X(Div) X(Enter) X(Idiv) X(Imul) X(In) X(Inc) X(Ins) X(Int) \
  X(Int1) X(Int3) X(Into) X(Iret) X(Jcc) X(Jcxz) X(Jmp) X(JmpFar) X(Lahf) X(Lds) X(Lea) X(Leave) X(Les) X(Lfs) \
  X(Lgs) X(Lods) X(Loop) X(Loope) X(Loopne) X(Lss) X(Mov) X(MovFromSeg) X(MovToSeg) X(Movbe) X(Movs) X(Movsx) \
  X(Movsxd) X(Movzx) X(Mul) X(Neg) X(Nop) X(Not) X(Or) X(Out) X(Outs) X(Pause) X(Pop) X(PopSeg) X(Popa) X(Popf) \
  X(Prefetch) X(Prefetchw) X(Push) X(PushSeg) X(Pusha) X(Pushf) X(Rcl) X(Rcr) X(Ret) X(RetFar) X(Rol) X(Ror) \
  X(Sahf) X(Salc) X(Sar) X(Sbb) X(Scas) X(Setcc) X(Shl) X(Shld) X(Shr) X(Shrd) X(Stc) X(Std) X(Stos) X(Sub) \
  X(Test) X(Ud0) X(Ud1) X(Ud2) X(Xadd) X(Xchg) X(Xlat) X(Xor) X(Adcx) X(Adox) X(Andn) X(Bextr) X(Blsi) X(Blsmsk) \
  X(Blsr) X(Bzhi) X(Crc32) X(Lzcnt) X(Movdiri) X(Movdir64b) X(Mulx) X(Pdep) X(Pext) X(Popcnt) X(Rdpid) X(Rdrand) \
  X(Rdseed) X(Rorx) X(Sarx) X(Serialize) X(Shlx) X(Shrx) X(Tzcnt) X(Tpause) X(Umonitor) X(Umwait)

/// System instructions.
#define TENON_X86_OPS_SYSTEM(X) \
  X(Clac) X(Clflush) X(Clflushopt) X(Cli) X(Clts) X(Clwb) X(Hlt) X(Invd) X(Invlpg) X(Invpcid) X(Lar) X(Lfence) \
  X(Lgdt) X(Lidt) X(Lldt) X(Lmsw) X(Lsl) X(Ltr) X(Mfence) X(Monitor) X(MovFromCr) X(MovFromDr) X(MovToCr) \
  X(MovToDr) X(Mwait) X(Rdfsbase) X(Rdgsbase) X(Rdmsr) X(Rdpkru) X(Rdpmc) X(Rdtsc) X(Rdtscp) X(Rsm) X(Sfence) \
  X(Sgdt) X(Sidt) X(Sldt) X(Smsw) X(Stac) X(Sti) X(Str) X(Swapgs) X(Syscall) X(Sysenter) X(Sysexit) X(Sysret) \
  X(Verr) X(Verw) X(Wbinvd) X(Wrfsbase) X(Wrgsbase) X(Wrmsr) X(Wrpkru) X(Xgetbv) X(Xsetbv) X(Fxsave) X(Fxrstor) \
  X(Xsave) X(Xrstor) X(Xsaveopt) X(Xsavec) X(Xsaves) X(Xrstors) X(Invept) X(Invvpid) X(Vmcall) X(Vmclear) \
  X(Vmfunc) X(Vmlaunch) X(Vmptrld) X(Vmptrst) X(Vmread) X(Vmresume) X(Vmwrite) X(Vmxoff) X(Vmxon) X(Clgi) \
  X(Invlpga) X(Skinit) X(Stgi) X(Vmload) X(Vmmcall) X(Vmrun) X(Vmsave)

/// x87 (SDM Vol. 1 chapter 8, Vol. 2 Appendix A.5).
#define TENON_X86_OPS_X87(X) \
  X(F2xm1) X(Fabs) X(Fadd) X(Faddp) X(Fbld) X(Fbstp) X(Fchs) X(Fcmovb) X(Fcmovbe) X(Fcmove) X(Fcmovnb) X(Fcmovnbe) \
  X(Fcmovne) X(Fcmovnu) X(Fcmovu) X(Fcom) X(Fcomi) X(Fcomip) X(Fcomp) X(Fcompp) X(Fcos) X(Fdecstp) X(Fdiv) \
  X(Fdivp) X(Fdivr) X(Fdivrp) X(Ffree) X(Ffreep) X(Fiadd) X(Ficom) X(Ficomp) X(Fidiv) X(Fidivr) X(Fild) X(Fimul) \
  X(Fincstp) X(Fist) X(Fistp) X(Fisttp) X(Fisub) X(Fisubr) X(Fld) X(Fld1) X(Fldcw) X(Fldenv) X(Fldl2e) X(Fldl2t) \
  X(Fldlg2) X(Fldln2) X(Fldpi) X(Fldz) X(Fmul) X(Fmulp) X(Fnclex) X(Fndisi) X(Fneni) X(Fninit) X(Fnop) X(Fnsave) \
  X(Fnsetpm) X(Fnstcw) X(Fnstenv) X(Fnstsw) X(Fpatan) X(Fprem) X(Fprem1) X(Fptan) X(Frndint) X(Frstor) X(Fscale) \
  X(Fsin) X(Fsincos) X(Fsqrt) X(Fst) X(Fstp) X(Fsub) X(Fsubp) X(Fsubr) X(Fsubrp) X(Ftst) X(Fucom) X(Fucomi) \
  X(Fucomip) X(Fucomp) X(Fucompp) X(Fwait) X(Fxam) X(Fxch) X(Fxtract) X(Fyl2x) X(Fyl2xp1)

/// MMX and legacy-encoded SSE to SSE4.2, AES, PCLMULQDQ, SHA, GFNI.
#define TENON_X86_OPS_SIMD(X) \
  X(Addpd) X(Addps) X(Addsd) X(Addss) X(Addsubpd) X(Addsubps) X(Aesdec) X(Aesdeclast) X(Aesenc) X(Aesenclast) \
  X(Aesimc) X(Aeskeygenassist) X(Andnpd) X(Andnps) X(Andpd) X(Andps) X(Blendpd) X(Blendps) X(Blendvpd) X(Blendvps) \
  X(Cmppd) X(Cmpps) X(Cmpsd) X(Cmpss) X(Comisd) X(Comiss) X(Cvtdq2pd) X(Cvtdq2ps) X(Cvtpd2dq) X(Cvtpd2pi) \
  X(Cvtpd2ps) X(Cvtpi2pd) X(Cvtpi2ps) X(Cvtps2dq) X(Cvtps2pd) X(Cvtps2pi) X(Cvtsd2si) X(Cvtsd2ss) X(Cvtsi2sd) \
  X(Cvtsi2ss) X(Cvtss2sd) X(Cvtss2si) X(Cvttpd2dq) X(Cvttpd2pi) X(Cvttps2dq) X(Cvttps2pi) X(Cvttsd2si) \
  X(Cvttss2si) X(Divpd) X(Divps) X(Divsd) X(Divss) X(Dppd) X(Dpps) X(Emms) X(Extractps) X(Gf2p8affineinvqb) \
  X(Gf2p8affineqb) X(Gf2p8mulb) X(Haddpd) X(Haddps) X(Hsubpd) X(Hsubps) X(Insertps) X(Lddqu) X(Ldmxcsr) \
  X(Maskmovdqu) X(Maskmovq) X(Maxpd) X(Maxps) X(Maxsd) X(Maxss) X(Minpd) X(Minps) X(Minsd) X(Minss) X(Movapd) \
  X(Movaps) X(Movd) X(Movddup) X(Movdq2q) X(Movdqa) X(Movdqu) X(Movhlps) X(Movhpd) X(Movhps) X(Movlhps) X(Movlpd) \
  X(Movlps) X(Movmskpd) X(Movmskps) X(Movntdq) X(Movntdqa) X(Movnti) X(Movntpd) X(Movntps) X(Movntq) X(Movq) \
  X(Movq2dq) X(Movsd) X(Movshdup) X(Movsldup) X(Movss) X(Movupd) X(Movups) X(Mpsadbw) X(Mulpd) X(Mulps) X(Mulsd) \
  X(Mulss) X(Orpd) X(Orps) X(Pabsb) X(Pabsd) X(Pabsw) X(Packssdw) X(Packsswb) X(Packusdw) X(Packuswb) X(Paddb) \
  X(Paddd) X(Paddq) X(Paddsb) X(Paddsw) X(Paddusb) X(Paddusw) X(Paddw) X(Palignr) X(Pand) X(Pandn) X(Pavgb) \
  X(Pavgw) X(Pblendvb) X(Pblendw) X(Pclmulqdq) X(Pcmpeqb) X(Pcmpeqd) X(Pcmpeqq) X(Pcmpeqw) X(Pcmpestri) \
  X(Pcmpestrm) X(Pcmpgtb) X(Pcmpgtd) X(Pcmpgtq) X(Pcmpgtw) X(Pcmpistri) X(Pcmpistrm) X(Pextrb) X(Pextrd) X(Pextrw) \
  X(Phaddd) X(Phaddsw) X(Phaddw) X(Phminposuw) X(Phsubd) X(Phsubsw) X(Phsubw) X(Pinsrb) X(Pinsrd) X(Pinsrw) \
  X(Pmaddubsw) X(Pmaddwd) X(Pmaxsb) X(Pmaxsd) X(Pmaxsw) X(Pmaxub) X(Pmaxud) X(Pmaxuw) X(Pminsb) X(Pminsd) \
  X(Pminsw) X(Pminub) X(Pminud) X(Pminuw) X(Pmovmskb) X(Pmovsxbd) X(Pmovsxbq) X(Pmovsxbw) X(Pmovsxdq) X(Pmovsxwd) \
  X(Pmovsxwq) X(Pmovzxbd) X(Pmovzxbq) X(Pmovzxbw) X(Pmovzxdq) X(Pmovzxwd) X(Pmovzxwq) X(Pmuldq) X(Pmulhrsw) \
  X(Pmulhuw) X(Pmulhw) X(Pmulld) X(Pmullw) X(Pmuludq) X(Por) X(Psadbw) X(Pshufb) X(Pshufd) X(Pshufhw) X(Pshuflw) \
  X(Pshufw) X(Psignb) X(Psignd) X(Psignw) X(Pslld) X(Pslldq) X(Psllq) X(Psllw) X(Psrad) X(Psraw) X(Psrld) \
  X(Psrldq) X(Psrlq) X(Psrlw) X(Psubb) X(Psubd) X(Psubq) X(Psubsb) X(Psubsw) X(Psubusb) X(Psubusw) X(Psubw) \
  X(Ptest) X(Punpckhbw) X(Punpckhdq) X(Punpckhqdq) X(Punpckhwd) X(Punpcklbw) X(Punpckldq) X(Punpcklqdq) \
  X(Punpcklwd) X(Pxor) X(Rcpps) X(Rcpss) X(Roundpd) X(Roundps) X(Roundsd) X(Roundss) X(Rsqrtps) X(Rsqrtss) \
  X(Sha1msg1) X(Sha1msg2) X(Sha1nexte) X(Sha1rnds4) X(Sha256msg1) X(Sha256msg2) X(Sha256rnds2) X(Shufpd) X(Shufps) \
  X(Sqrtpd) X(Sqrtps) X(Sqrtsd) X(Sqrtss) X(Stmxcsr) X(Subpd) X(Subps) X(Subsd) X(Subss) X(Ucomisd) X(Ucomiss) \
  X(Unpckhpd) X(Unpckhps) X(Unpcklpd) X(Unpcklps) X(Xorpd) X(Xorps)

/// VEX-encoded: AVX, AVX2, FMA, F16C, VAES, VPCLMULQDQ, GFNI.
#define TENON_X86_OPS_AVX(X) \
  X(Vaddpd) X(Vaddps) X(Vaddsd) X(Vaddss) X(Vaddsubpd) X(Vaddsubps) X(Vaesdec) X(Vaesdeclast) X(Vaesenc) \
  X(Vaesenclast) X(Vaesimc) X(Vaeskeygenassist) X(Vandnpd) X(Vandnps) X(Vandpd) X(Vandps) X(Vblendpd) X(Vblendps) \
  X(Vblendvpd) X(Vblendvps) X(Vbroadcastf128) X(Vbroadcasti128) X(Vbroadcastsd) X(Vbroadcastss) X(Vcmppd) \
  X(Vcmpps) X(Vcmpsd) X(Vcmpss) X(Vcomisd) X(Vcomiss) X(Vcvtdq2pd) X(Vcvtdq2ps) X(Vcvtpd2dq) X(Vcvtpd2ps) \
  X(Vcvtph2ps) X(Vcvtps2dq) X(Vcvtps2pd) X(Vcvtps2ph) X(Vcvtsd2si) X(Vcvtsd2ss) X(Vcvtsi2sd) X(Vcvtsi2ss) \
  X(Vcvtss2sd) X(Vcvtss2si) X(Vcvttpd2dq) X(Vcvttps2dq) X(Vcvttsd2si) X(Vcvttss2si) X(Vdivpd) X(Vdivps) X(Vdivsd) \
  X(Vdivss) X(Vdppd) X(Vdpps) X(Vextractf128) X(Vextracti128) X(Vextractps) X(Vfmadd132pd) X(Vfmadd132ps) \
  X(Vfmadd132sd) X(Vfmadd132ss) X(Vfmadd213pd) X(Vfmadd213ps) X(Vfmadd213sd) X(Vfmadd213ss) X(Vfmadd231pd) \
  X(Vfmadd231ps) X(Vfmadd231sd) X(Vfmadd231ss) X(Vfmaddsub132pd) X(Vfmaddsub132ps) X(Vfmaddsub213pd) \
  X(Vfmaddsub213ps) X(Vfmaddsub231pd) X(Vfmaddsub231ps) X(Vfmsub132pd) X(Vfmsub132ps) X(Vfmsub132sd) \
  X(Vfmsub132ss) X(Vfmsub213pd) X(Vfmsub213ps) X(Vfmsub213sd) X(Vfmsub213ss) X(Vfmsub231pd) X(Vfmsub231ps) \
  X(Vfmsub231sd) X(Vfmsub231ss) X(Vfmsubadd132pd) X(Vfmsubadd132ps) X(Vfmsubadd213pd) X(Vfmsubadd213ps) \
  X(Vfmsubadd231pd) X(Vfmsubadd231ps) X(Vfnmadd132pd) X(Vfnmadd132ps) X(Vfnmadd132sd) X(Vfnmadd132ss) \
  X(Vfnmadd213pd) X(Vfnmadd213ps) X(Vfnmadd213sd) X(Vfnmadd213ss) X(Vfnmadd231pd) X(Vfnmadd231ps) X(Vfnmadd231sd) \
  X(Vfnmadd231ss) X(Vfnmsub132pd) X(Vfnmsub132ps) X(Vfnmsub132sd) X(Vfnmsub132ss) X(Vfnmsub213pd) X(Vfnmsub213ps) \
  X(Vfnmsub213sd) X(Vfnmsub213ss) X(Vfnmsub231pd) X(Vfnmsub231ps) X(Vfnmsub231sd) X(Vfnmsub231ss) X(Vgatherdpd) \
  X(Vgatherdps) X(Vgatherqpd) X(Vgatherqps) X(Vgf2p8affineinvqb) X(Vgf2p8affineqb) X(Vgf2p8mulb) X(Vhaddpd) \
  X(Vhaddps) X(Vhsubpd) X(Vhsubps) X(Vinsertf128) X(Vinserti128) X(Vinsertps) X(Vlddqu) X(Vldmxcsr) X(Vmaskmovdqu) \
  X(Vmaskmovpd) X(Vmaskmovps) X(Vmaxpd) X(Vmaxps) X(Vmaxsd) X(Vmaxss) X(Vminpd) X(Vminps) X(Vminsd) X(Vminss) \
  X(Vmovapd) X(Vmovaps) X(Vmovd) X(Vmovddup) X(Vmovdqa) X(Vmovdqu) X(Vmovhlps) X(Vmovhpd) X(Vmovhps) X(Vmovlhps) \
  X(Vmovlpd) X(Vmovlps) X(Vmovmskpd) X(Vmovmskps) X(Vmovntdq) X(Vmovntdqa) X(Vmovntpd) X(Vmovntps) X(Vmovq) \
  X(Vmovsd) X(Vmovshdup) X(Vmovsldup) X(Vmovss) X(Vmovupd) X(Vmovups) X(Vmpsadbw) X(Vmulpd) X(Vmulps) X(Vmulsd) \
  X(Vmulss) X(Vorpd) X(Vorps) X(Vpabsb) X(Vpabsd) X(Vpabsw) X(Vpackssdw) X(Vpacksswb) X(Vpackusdw) X(Vpackuswb) \
  X(Vpaddb) X(Vpaddd) X(Vpaddq) X(Vpaddsb) X(Vpaddsw) X(Vpaddusb) X(Vpaddusw) X(Vpaddw) X(Vpalignr) X(Vpand) \
  X(Vpandn) X(Vpavgb) X(Vpavgw) X(Vpblendd) X(Vpblendvb) X(Vpblendw) X(Vpbroadcastb) X(Vpbroadcastd) \
  X(Vpbroadcastq) X(Vpbroadcastw) X(Vpclmulqdq) X(Vpcmpeqb) X(Vpcmpeqd) X(Vpcmpeqq) X(Vpcmpeqw) X(Vpcmpestri) \
  X(Vpcmpestrm) X(Vpcmpgtb) X(Vpcmpgtd) X(Vpcmpgtq) X(Vpcmpgtw) X(Vpcmpistri) X(Vpcmpistrm) X(Vperm2f128) \
  X(Vperm2i128) X(Vpermd) X(Vpermilpd) X(Vpermilps) X(Vpermpd) X(Vpermps) X(Vpermq) X(Vpextrb) X(Vpextrd) \
  X(Vpextrw) X(Vpgatherdd) X(Vpgatherdq) X(Vpgatherqd) X(Vpgatherqq) X(Vphaddd) X(Vphaddsw) X(Vphaddw) \
  X(Vphminposuw) X(Vphsubd) X(Vphsubsw) X(Vphsubw) X(Vpinsrb) X(Vpinsrd) X(Vpinsrw) X(Vpmaddubsw) X(Vpmaddwd) \
  X(Vpmaskmovd) X(Vpmaskmovq) X(Vpmaxsb) X(Vpmaxsd) X(Vpmaxsw) X(Vpmaxub) X(Vpmaxud) X(Vpmaxuw) X(Vpminsb) \
  X(Vpminsd) X(Vpminsw) X(Vpminub) X(Vpminud) X(Vpminuw) X(Vpmovmskb) X(Vpmovsxbd) X(Vpmovsxbq) X(Vpmovsxbw) \
  X(Vpmovsxdq) X(Vpmovsxwd) X(Vpmovsxwq) X(Vpmovzxbd) X(Vpmovzxbq) X(Vpmovzxbw) X(Vpmovzxdq) X(Vpmovzxwd) \
  X(Vpmovzxwq) X(Vpmuldq) X(Vpmulhrsw) X(Vpmulhuw) X(Vpmulhw) X(Vpmulld) X(Vpmullw) X(Vpmuludq) X(Vpor) X(Vpsadbw) \
  X(Vpshufb) X(Vpshufd) X(Vpshufhw) X(Vpshuflw) X(Vpsignb) X(Vpsignd) X(Vpsignw) X(Vpslld) X(Vpslldq) X(Vpsllq) \
  X(Vpsllvd) X(Vpsllvq) X(Vpsllw) X(Vpsrad) X(Vpsravd) X(Vpsraw) X(Vpsrld) X(Vpsrldq) X(Vpsrlq) X(Vpsrlvd) \
  X(Vpsrlvq) X(Vpsrlw) X(Vpsubb) X(Vpsubd) X(Vpsubq) X(Vpsubsb) X(Vpsubsw) X(Vpsubusb) X(Vpsubusw) X(Vpsubw) \
  X(Vptest) X(Vpunpckhbw) X(Vpunpckhdq) X(Vpunpckhqdq) X(Vpunpckhwd) X(Vpunpcklbw) X(Vpunpckldq) X(Vpunpcklqdq) \
  X(Vpunpcklwd) X(Vpxor) X(Vrcpps) X(Vrcpss) X(Vroundpd) X(Vroundps) X(Vroundsd) X(Vroundss) X(Vrsqrtps) \
  X(Vrsqrtss) X(Vshufpd) X(Vshufps) X(Vsqrtpd) X(Vsqrtps) X(Vsqrtsd) X(Vsqrtss) X(Vstmxcsr) X(Vsubpd) X(Vsubps) \
  X(Vsubsd) X(Vsubss) X(Vtestpd) X(Vtestps) X(Vucomisd) X(Vucomiss) X(Vunpckhpd) X(Vunpckhps) X(Vunpcklpd) \
  X(Vunpcklps) X(Vxorpd) X(Vxorps) X(Vzeroall) X(Vzeroupper)

// clang-format on

#define TENON_X86_OPS(X)   \
  TENON_X86_OPS_GENERAL(X) \
  TENON_X86_OPS_SYSTEM(X)  \
  TENON_X86_OPS_X87(X)     \
  TENON_X86_OPS_SIMD(X)    \
  TENON_X86_OPS_AVX(X)

enum class Op : uint16_t {
  kInvalid,
#define TENON_X86_ENUMERATOR(name) k##name,
  TENON_X86_OPS(TENON_X86_ENUMERATOR)
#undef TENON_X86_ENUMERATOR
      kCount,
};

/// The enumerator without its `k` ("Add", "Jcc"), "Invalid" for anything else. For logs and tests.
const char* op_name(Op op);

}  // namespace tenon::x86
