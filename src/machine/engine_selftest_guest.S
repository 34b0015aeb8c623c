// The guest that decides whether an engine can be trusted with a stock kernel: 64-bit, entered at CPL 0 by flat_guest.
// It reports the number of each step it has passed on port 0xf4; see SelfTestStep in engine_selftest.hh.
        .intel_syntax noprefix
        .section .rodata.guest, "a", @progbits
        .globl tenon_self_test_guest, tenon_self_test_guest_end
        .globl tenon_self_test_breakpoint, tenon_self_test_fault
        .set REPORT, 0xf4
        .set LOOP_COUNT, 10000          // SelfTest::kLoopInstructions = 6 a turn
        .balign 4096
tenon_self_test_guest:
        mov     al, 1                   // kRing0: a port write at CPL 0
        out     REPORT, al

        lea     rsi, [rip + scratch]    // kCmpxchg16b: Linux's SLUB needs it
        xor     eax, eax
        xor     edx, edx
        mov     ebx, 0x11
        mov     ecx, 0x22
        lock cmpxchg16b [rsi]
        jnz     failed
        cmp     qword ptr [rsi], 0x11
        jne     failed
        cmp     qword ptr [rsi + 8], 0x22
        jne     failed
        mov     al, 2
        out     REPORT, al

        mov     rax, cr4                // kXsave: every Linux context switch
        or      eax, 1 << 18
        mov     cr4, rax
        mov     eax, 3
        xor     edx, edx
        xor     ecx, ecx
        xsetbv
        mov     eax, 0x12345678
        movd    xmm7, eax
        mov     eax, 3
        lea     rdi, [rip + xsave_area]
        xsave64 [rdi]
        pxor    xmm7, xmm7
        mov     eax, 3
        xor     edx, edx
        xrstor64 [rdi]
        movd    eax, xmm7
        cmp     eax, 0x12345678
        jne     failed
        mov     al, 3
        out     REPORT, al

        xor     r15d, r15d              // kBreakpoint: INT3 and IRET at CPL 0 (alternatives patching, ftrace)
        int3
        cmp     r15d, 1
        jne     failed
        mov     al, 4
        out     REPORT, al

        lea     rax, [rip + ring3]      // kRing3: IRET to CPL 3, INT3 from there, back by the handler
        mov     rcx, rsp
        push    0x1b
        push    rcx
        push    2
        push    0x23
        push    rax
        iretq
ring3:
        mov     ax, cs
        and     eax, 3
        cmp     eax, 3
        jne     ring3_failed
        int3                            // handler sees CPL 3 in the frame and goes on at back_in_ring0
ring3_failed:
        ud2

back_in_ring0:
        mov     al, 5
        out     REPORT, al

        lea     rsi, [rip + scratch]    // kLoopStart .. kLoopEnd: integer code at CPL 0, timed by the host
        mov     ecx, LOOP_COUNT
        xor     eax, eax
        mov     al, 6
        out     REPORT, al
1:      add     rax, rcx
        mov     [rsi], rax
        xor     rdx, [rsi]
        lea     rbx, [rax + rdx]
        dec     ecx
        jnz     1b
        mov     al, 7
        out     REPORT, al
failed:
        hlt
        jmp     failed

tenon_self_test_breakpoint:             // vector 3
        inc     r15d
        test    byte ptr [rsp + 8], 3   // CS in the frame
        jz      2f
        lea     rax, [rip + back_in_ring0]
        mov     rsp, 0x7000             // FlatGuest::kKernelStackTop
        jmp     rax
2:      iretq

tenon_self_test_fault:                  // any other exception
        mov     al, 0xff
        out     REPORT, al
        jmp     failed

        .balign 4096                    // data away from code, as compilers lay it out
scratch:
        .quad   0, 0
        .balign 64
xsave_area:
        .skip   1024
tenon_self_test_guest_end:
        .section .note.GNU-stack, "", @progbits
