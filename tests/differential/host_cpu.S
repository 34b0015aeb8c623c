// void tenon_host_run(MachineState* before): loads the state, jumps to before->rip, and comes back through tenon_host_done
// (from the jump behind the instruction) or tenon_host_recover (from the signal handler, which has saved the state).
// void tenon_host_trap(int, siginfo_t*, void*): signal entry that restores FS base before any C code runs.
        .intel_syntax noprefix
        .text
        .globl  tenon_host_run, tenon_host_done, tenon_host_recover, tenon_host_trap
        .type   tenon_host_run, @function
        .set    STATE_RIP, 128
        .set    STATE_RFLAGS, 136
        .set    STATE_FS, 144
        .set    STATE_GS, 152
        .set    STATE_XSAVE, 192
tenon_host_run:
        push    rbx
        push    rbp
        push    r12
        push    r13
        push    r14
        push    r15
        sub     rsp, 8
        stmxcsr [rsp]
        fnstcw  [rsp + 4]
        mov     [rip + saved_rsp], rsp
        rdfsbase rax
        mov     [rip + saved_fs], rax
        rdgsbase rax
        mov     [rip + saved_gs], rax
        mov     rax, [rdi + STATE_RIP]
        mov     [rip + target], rax
        mov     rcx, [rdi + STATE_GS]
        wrgsbase rcx
        mov     eax, 7
        xor     edx, edx
        xrstor64 [rdi + STATE_XSAVE]
        mov     rcx, [rdi + STATE_FS]
        wrfsbase rcx
        push    qword ptr [rdi + STATE_RFLAGS]
        mov     rax, [rdi]
        mov     rcx, [rdi + 8]
        mov     rdx, [rdi + 16]
        mov     rbx, [rdi + 24]
        mov     rbp, [rdi + 40]
        mov     rsi, [rdi + 48]
        mov     r8, [rdi + 64]
        mov     r9, [rdi + 72]
        mov     r10, [rdi + 80]
        mov     r11, [rdi + 88]
        mov     r12, [rdi + 96]
        mov     r13, [rdi + 104]
        mov     r14, [rdi + 112]
        mov     r15, [rdi + 120]
        popfq
        mov     rsp, [rdi + 32]
        mov     rdi, [rdi + 56]
        jmp     [rip + target]

tenon_host_done:                        // no register is free and flags are the guest's
        mov     [rip + tenon_host_after + 32], rsp
        lea     rsp, [rip + flag_stack_top]
        pushfq
        mov     [rip + tenon_host_after + 0], rax
        mov     [rip + tenon_host_after + 8], rcx
        mov     [rip + tenon_host_after + 16], rdx
        mov     [rip + tenon_host_after + 24], rbx
        mov     [rip + tenon_host_after + 40], rbp
        mov     [rip + tenon_host_after + 48], rsi
        mov     [rip + tenon_host_after + 56], rdi
        mov     [rip + tenon_host_after + 64], r8
        mov     [rip + tenon_host_after + 72], r9
        mov     [rip + tenon_host_after + 80], r10
        mov     [rip + tenon_host_after + 88], r11
        mov     [rip + tenon_host_after + 96], r12
        mov     [rip + tenon_host_after + 104], r13
        mov     [rip + tenon_host_after + 112], r14
        mov     [rip + tenon_host_after + 120], r15
        pop     rax
        mov     [rip + tenon_host_after + STATE_RFLAGS], rax
        push    2                       // AC and DF off before anything else
        popfq
        rdfsbase rax
        mov     [rip + tenon_host_after + STATE_FS], rax
        rdgsbase rax
        mov     [rip + tenon_host_after + STATE_GS], rax
        mov     eax, 7
        xor     edx, edx
        xsave64 [rip + tenon_host_after + STATE_XSAVE]
tenon_host_recover:
        mov     rax, [rip + saved_fs]
        wrfsbase rax
        mov     rax, [rip + saved_gs]
        wrgsbase rax
        mov     rsp, [rip + saved_rsp]
        vzeroupper
        fninit
        ldmxcsr [rsp]
        fldcw   [rsp + 4]
        add     rsp, 8
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbp
        pop     rbx
        cld
        ret

tenon_host_trap:
        rdfsbase rax
        mov     [rip + tenon_host_after + STATE_FS], rax
        rdgsbase rax
        mov     [rip + tenon_host_after + STATE_GS], rax
        mov     rax, [rip + saved_fs]
        wrfsbase rax
        mov     rax, [rip + saved_gs]
        wrgsbase rax
        jmp     tenon_host_trapped      // C++: fills the rest of tenon_host_after from the frame

        .bss
        .balign 64
        .globl  tenon_host_after
tenon_host_after:
        .skip   192 + 832
        .balign 16
        .skip   64
flag_stack_top:
        .skip   64
saved_rsp:
        .skip   8
saved_fs:
        .skip   8
saved_gs:
        .skip   8
target: .skip   8
        .section .note.GNU-stack, "", @progbits
