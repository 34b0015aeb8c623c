// Litmus tests of memory order. RCX: rounds in a batch (one cell of 128 bytes each, x at +0 and y at +64), RDX: batches,
// RBX: the cells, RBP: results, 8 bytes a round and vCPU (64 KiB apart), R15: the vCPUs meet every R15 + 1 rounds.
// vCPU 0 reports after each batch; the host looks at results and clears the cells.
        .include "smp/guest.inc"

.macro  litmus name
guest \name
        lea     r14, [rip + 4f]
        movsxd  rax, dword ptr [r14 + rdi * 4]
        add     r14, rax
        mov     rax, rdi
        shl     rax, 16
        add     rbp, rax
        xor     r11d, r11d              // steps met
        mov     [rsp - 64], rcx
1:      inc     r11
        meet    r11
        xor     ecx, ecx
2:      test    ecx, r15d
        jnz     3f
        inc     r11
        meet    r11
3:      imul    eax, r11d, 0x9e3779b1   // a little, different time for each round and vCPU
        add     eax, ecx
        rol     eax, cl
        imul    eax, eax, 0x85ebca6b
        lea     r8d, [rdi * 8 + 3]
        xor     eax, r8d
        imul    eax, eax, 0xc2b2ae35
        shr     eax, 28
        jz      5f
10:     dec     eax
        jnz     10b
5:      mov     r12, rcx
        shl     r12, 7
        add     r12, rbx
        call    r14
        mov     [rbp + rcx * 8], eax
        mov     [rbp + rcx * 8 + 4], r13d
        inc     rcx
        cmp     rcx, [rsp - 64]
        jne     2b
        inc     r11
        meet    r11
        test    edi, edi
        jnz     11f
        out     REPORT, al
11:     inc     r11
        meet    r11
        dec     rdx
        jnz     1b
        out     DONE, al
12:     hlt
        jmp     12b
.endm
// The table of roles: what vCPU 0, 1, 2, 3 do.
.macro  roles a, b, c=0, d=0
        .balign 4
4:      .long   \a - 4b, \b - 4b, \c - 4b, \d - 4b
.endm
.macro  end_litmus name
        .balign 64
tenon_smp_\name\()_end:
.endm

litmus sb
        roles   20f, 21f, 20f, 21f
20:     mov     dword ptr [r12], 1
        mov     eax, [r12 + 64]
        ret
21:     mov     dword ptr [r12 + 64], 1
        mov     eax, [r12]
        ret
end_litmus sb

litmus sb_mfence
        roles   20f, 21f, 20f, 21f
20:     mov     dword ptr [r12], 1
        mfence
        mov     eax, [r12 + 64]
        ret
21:     mov     dword ptr [r12 + 64], 1
        mfence
        mov     eax, [r12]
        ret
end_litmus sb_mfence

litmus sb_lock
        roles   20f, 21f, 20f, 21f
20:     mov     dword ptr [r12], 1
        lock or dword ptr [rsp - 16], 0
        mov     eax, [r12 + 64]
        ret
21:     mov     dword ptr [r12 + 64], 1
        lock or dword ptr [rsp - 16], 0
        mov     eax, [r12]
        ret
end_litmus sb_lock

litmus sb_xchg
        roles   20f, 21f, 20f, 21f
20:     mov     r13d, 1
        xchg    [r12], r13d
        mov     eax, [r12 + 64]
        ret
21:     mov     r13d, 1
        xchg    [r12 + 64], r13d
        mov     eax, [r12]
        ret
end_litmus sb_xchg

litmus mp
        roles   20f, 21f, 20f, 21f
20:     mov     dword ptr [r12], 1
        mov     dword ptr [r12 + 64], 1
        ret
21:     mov     eax, [r12 + 64]
        mov     r13d, [r12]
        ret
end_litmus mp

litmus lb
        roles   20f, 21f, 20f, 21f
20:     mov     eax, [r12]
        mov     dword ptr [r12 + 64], 1
        ret
21:     mov     eax, [r12 + 64]
        mov     dword ptr [r12], 1
        ret
end_litmus lb

litmus iriw
        roles   20f, 21f, 22f, 23f
20:     mov     dword ptr [r12], 1
        ret
21:     mov     dword ptr [r12 + 64], 1
        ret
22:     mov     eax, [r12]
        mov     r13d, [r12 + 64]
        ret
23:     mov     eax, [r12 + 64]
        mov     r13d, [r12]
        ret
end_litmus iriw

litmus corr
        roles   20f, 21f, 22f, 21f
20:     mov     dword ptr [r12], 1
        mov     dword ptr [r12], 2
        ret
21:     mov     eax, [r12]
        mov     r13d, [r12]
        ret
22:     mov     r13d, [r12]
        mov     eax, r13d
        ret
end_litmus corr

litmus two_two_w
        roles   20f, 21f, 22f, 22f
20:     mov     dword ptr [r12], 1
        mov     dword ptr [r12 + 64], 2
        ret
21:     mov     dword ptr [r12 + 64], 1
        mov     dword ptr [r12], 2
22:     ret
end_litmus two_two_w

        .section .note.GNU-stack, "", @progbits
