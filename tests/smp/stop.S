// Work whose result does not depend on when it is interrupted. RCX: rounds; RBX: shared counters (R14: one that crosses a
// page); RBP: private memory, 4 KiB, zero at first. Results: R12, R13, XMM0, the memory.
        .include "smp/guest.inc"

guest work
        mov     r12d, 1
        xor     r13d, r13d
        mov     r15, rcx
        mov     eax, 3
        cvtsi2sd xmm0, eax
        mov     eax, 7
        cvtsi2sd xmm1, eax
        fninit
        fld1
1:      mov     rax, 6364136223846793005
        imul    r12, rax
        add     r12, r15
        mov     edx, r12d
        and     edx, 0x7f8
        add     [rbp + rdx], r12
        adc     r13, [rbp + 8]
        cld
        lea     rdi, [rbp + 0x800]
        mov     rsi, rbp
        mov     ecx, 16
        rep movsq
        std
        lea     rdi, [rbp + 0x9f8]
        mov     eax, r13d
        mov     ecx, 8
        rep stosq
        cld
        pushfq
        pop     r11
        xor     r13, r11
        addsd   xmm0, xmm1
        divsd   xmm1, xmm0
        addsd   xmm1, xmm0
        fld1
        faddp   st(1), st
        lock inc qword ptr [rbx]
        test    r15d, 63
        jnz     2f
        lock inc qword ptr [r14]
        sti                             // a shadow now and then
        nop
        cli
        mov     r8, rbx
        xor     eax, eax
        cpuid
        mov     rbx, r8
2:
        dec     r15
        jnz     1b
        fistp   qword ptr [rbp + 0xa00]
        movsd   [rbp + 0xa08], xmm0
end_guest work
        .section .note.GNU-stack, "", @progbits
