// Code that changes while it runs. RCX: rounds. R12 counts rounds in which old code ran.
        .include "smp/guest.inc"

// A store changes the immediate of an instruction a few bytes ahead, in the same trace; then one behind a jump; then one
// whose immediate goes on in the next page (only the part there changes).
guest self_modifying
        xor     r12d, r12d
1:      imul    eax, ecx, 0x01010101
        mov     [rip + 2f + 1], eax
2:      mov     ebx, 0
        cmp     eax, ebx
        setne   dl
        movzx   edx, dl
        add     r12, rdx
        not     eax
        mov     [rip + 3f + 1], eax
        jmp     3f
        nop
3:      mov     ebx, 0
        cmp     eax, ebx
        setne   dl
        movzx   edx, dl
        add     r12, rdx
        jmp     4f
        .org    tenon_smp_self_modifying + 0x1000 - 3, 0x90
4:      mov     ebx, 0
        .org    tenon_smp_self_modifying + 0x1010, 0x90
        shr     ebx, 16
        cmp     bx, r13w
        setne   dl
        movzx   edx, dl
        add     r12, rdx
        mov     r13d, ecx
        mov     [rip + 4b + 3], cx      // the next round runs it
        dec     rcx
        jnz     1b
end_guest self_modifying

// The vCPU changes code through another linear address of its page (RBX: distance of the two). Code runs at both.
guest alias
        xor     r12d, r12d
        lea     rbp, [rip + 3f]
        lea     r14, [rbp + rbx]
1:      mov     [r14 + 1], ecx
        xor     eax, eax
        mov     r15, rcx
        push    rbx
        cpuid                           // serialises: needed where the addresses differ (SDM Vol. 3 9.1.3)
        pop     rbx
        mov     rcx, r15
        call    rbp
        cmp     eax, ecx
        setne   dl
        movzx   edx, dl
        add     r12, rdx
        call    r14
        cmp     eax, ecx
        setne   dl
        movzx   edx, dl
        add     r12, rdx
        dec     rcx
        jnz     1b
        jmp     4f
        .balign 64
3:      mov     eax, 0
        ret
4:
end_guest alias

// The last vCPU writes the round's number into a function through RBP and publishes it at [R13]; the others wait for it,
// serialise, call the function at R14 and answer (SDM Vol. 3 9.1.3, cross-modifying code).
guest cross_modifying
        xor     r12d, r12d
        mov     r15, rcx
        lea     rax, [rsi - 1]
        cmp     rdi, rax
        je      5f
        xor     ebx, ebx
1:      inc     rbx
2:      cmp     [r13], rbx
        jae     3f
        pause
        jmp     2b
3:      push    rbx
        xor     eax, eax
        cpuid
        pop     rbx
        call    r14
        cmp     eax, ebx
        setne   dl
        movzx   edx, dl
        add     r12, rdx
        lock inc qword ptr [r13 + 64]   // answers
        cmp     rbx, r15
        jne     1b
        jmp     7f
5:      xor     ebx, ebx
        xor     r8d, r8d
        dec     rsi
6:      inc     rbx
        mov     [rbp + 1], ebx
        mov     [r13], rbx
        add     r8, rsi
8:      cmp     [r13 + 64], r8
        je      4f
        pause
        jmp     8b
4:      cmp     rbx, r15
        jne     6b
7:
end_guest cross_modifying

// The host writes the function at R14 and then the round's number at [R13]; every vCPU calls it and answers at [R13 + 64].
guest written_by_host
        xor     r12d, r12d
        xor     ebx, ebx
1:      inc     rbx
2:      cmp     [r13], rbx
        jae     3f
        pause
        jmp     2b
3:      push    rbx
        push    rcx
        xor     eax, eax
        cpuid
        pop     rcx
        pop     rbx
        call    r14
        cmp     eax, ebx
        setne   dl
        movzx   edx, dl
        add     r12, rdx
        lock inc qword ptr [r13 + 64]
        cmp     rbx, rcx
        jne     1b
end_guest written_by_host

// The same, told by an interrupt. RBX: interrupts taken.
guest interrupted
        xor     r12d, r12d
        xor     ebx, ebx
        jmp     1f
        .org    tenon_smp_interrupted + 0x80
        inc     rbx
        call    r14
        cmp     eax, ebx
        setne   dl
        movzx   edx, dl
        add     r12, rdx
        lock inc qword ptr [r13 + 64]
        iretq
1:      sti
2:      call    r14                     // keeps the old code warm
        pause
        cmp     rbx, rcx
        jne     2b
        cli
end_guest interrupted

        .section .note.GNU-stack, "", @progbits
