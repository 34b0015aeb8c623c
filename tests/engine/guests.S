// Small 64-bit guests for the engine contract tests, entered at CPL 0 by flat_guest at FlatGuest::kCode. Each is copied
// there on its own, so it refers to itself only by RIP. They report on port 0xf4 and finish with port 0xf5.
        .intel_syntax noprefix
        .section .rodata.guest, "a", @progbits
        .set REPORT, 0xf4
        .set DONE, 0xf5
        .set DEVICE_MMIO, 0xd0000000
        .set LOCAL_APIC, 0xfee00000
        .set IO_APIC, 0xfec00000
        // Of guest shared_object: its function begins at the end of one page and goes on in the next.
        .set FIRST_PART, 0x80
        .set FUNCTION, 0x31000 - FIRST_PART
        .set INNER, 0x31010
        .set VARIANT, 0x10              // from INNER
        .set OBJECT_SIZE, FIRST_PART + 0x40

.macro  guest name
        .balign 64
        .globl  tenon_guest_\name
tenon_guest_\name:
.endm
.macro  end_guest name
        out     DONE, al
9:      hlt
        jmp     9b
.endm
// A handler at a fixed offset from the guest's start, for FlatGuest::set_gate.
.macro  handler name, offset
        .org    tenon_guest_\name + \offset
.endm

// IN and OUT of each size, REP INS and OUTS.
guest ports
        in      al, 0x10
        inc     al
        out     0x11, al
        in      ax, 0x12
        inc     ax
        out     0x14, ax
        in      eax, 0x18
        inc     eax
        out     0x1c, eax
        mov     edi, 0x20000
        mov     edx, 0x620
        mov     ecx, 5
        cld
        rep insb
        mov     esi, 0x20000
        mov     edx, 0x621
        mov     ecx, 5
        rep outsb
end_guest ports

// Loads and stores of each size, read-modify-write and REP MOVS on a device.
guest mmio
        mov     rbx, DEVICE_MMIO
        mov     al, [rbx]
        mov     [rbx + 0x10], al
        mov     ax, [rbx + 2]
        mov     [rbx + 0x12], ax
        mov     eax, [rbx + 4]
        mov     [rbx + 0x14], eax
        mov     rax, [rbx + 8]
        mov     [rbx + 0x18], rax
        add     dword ptr [rbx + 0x14], 1
        mov     rsi, rbx
        mov     edi, 0x20000
        mov     ecx, 2
        cld
        rep movsq
        mov     rax, [0x20008]
        mov     [rbx + 0x20], rax
end_guest mmio

// A personality MSR written and read, then one the machine refuses: #GP.
guest msr
        mov     ecx, 0x4b564d01
        mov     eax, 0x11223344
        mov     edx, 0x55667788
        wrmsr
        xor     eax, eax
        xor     edx, edx
        rdmsr
        out     REPORT, eax
        mov     eax, edx
        out     REPORT, eax
        mov     ecx, 0x4b564d7f
        rdmsr
        ud2
handler msr, 0x80                       // vector 13
        mov     eax, 13
        out     REPORT, eax
end_guest msr

// No IDT: the first exception is a triple fault.
guest triple_fault
        lidt    [rip + 1f]
        ud2
1:      .word   0
        .quad   0
end_guest triple_fault

// Counts in RBX for ever.
guest count
        xor     ebx, ebx
1:      inc     rbx
        jmp     1b
end_guest count

// Waits for interrupt vector 0x40 on its local APIC, twice.
guest interrupt
        mov     rbx, LOCAL_APIC
        mov     dword ptr [rbx + 0xf0], 0x1ff
        mov     eax, 1
        out     REPORT, eax
        sti
        hlt
        sti
        hlt
        cli
end_guest interrupt
handler interrupt, 0x80                 // vector 0x40
        mov     rbx, LOCAL_APIC
        mov     dword ptr [rbx + 0xb0], 0
        mov     eax, 0x40
        out     REPORT, eax
        iretq

// Vector 0x40 comes while interrupts are off, twice; EBX counts instructions after they are turned on.
guest interrupt_flag
        mov     rbp, LOCAL_APIC
        mov     dword ptr [rbp + 0xf0], 0x1ff
        mov     eax, 1
        out     REPORT, eax
        mov     ecx, 1000
1:      dec     ecx                     // somebody looks at what is pending, in vain
        jnz     1b
        jmp     2f
handler interrupt_flag, 0x80            // vector 0x40
        mov     dword ptr [rbp + 0xb0], 0
        lea     eax, [rbx + 0x40]
        out     REPORT, eax
        iretq
2:      xor     ebx, ebx
        sti                             // not before the next instruction is done
        mov     ebx, 1
        mov     ebx, 2
        cli
        mov     eax, 2
        out     REPORT, eax
        mov     ecx, 1000
1:      dec     ecx
        jnz     1b
        pushfq
        or      dword ptr [rsp], 0x200
        xor     ebx, ebx
        popfq                           // at once
        mov     ebx, 1
        pushfq
        pop     rax
        and     eax, 0x200
        out     REPORT, eax
        cli
        pushfq
        pop     rax
        and     eax, 0x200
        out     REPORT, eax
end_guest interrupt_flag

// Flags in PUSHF and POPF images, live through CLI and STI; bases; control registers; time.
guest system_state
        push    0x8d7                   // OF SF ZF AF PF CF
        popfq
        cli
        cld
        pushfq
        pop     rax
        out     REPORT, eax
        push    0x403                   // DF CF
        popfq
        pushfq
        cld
        pop     rax
        out     REPORT, eax
        pushfq
        pop     rax
        out     REPORT, eax
        mov     ecx, 0xc0000102
        mov     eax, 0x11223344
        mov     edx, 0xffff8000
        wrmsr                           // kernel GS base
        dec     ecx
        mov     eax, 0x30000
        xor     edx, edx
        wrmsr                           // GS base
        mov     dword ptr [0x30008], 0x5678
        mov     eax, gs:[8]
        out     REPORT, eax
        swapgs
        rdmsr
        out     REPORT, eax
        mov     eax, edx
        out     REPORT, eax
        swapgs
        mov     eax, gs:[8]
        out     REPORT, eax
        mov     rax, cr4
        or      eax, 0x10000            // FSGSBASE
        mov     cr4, rax
        mov     r10d, 0x30004
        wrgsbase r10
        rdgsbase r9
        sub     r9, r10
        mov     eax, gs:[r9 + 4]
        out     REPORT, eax
        mov     rax, cr0
        and     eax, 0x80000001
        out     REPORT, eax
        mov     rax, 0x123456789000
        mov     cr2, rax
        mov     r11, cr2
        shr     r11, 32
        mov     eax, r11d
        out     REPORT, eax
        rdtsc
        mov     ebx, eax
        mov     esi, edx
        rdtsc
        sub     eax, ebx
        sbb     edx, esi
        mov     eax, edx                // little time has passed
        out     REPORT, eax
end_guest system_state

// REP MOVS and STOS over several pages, overlapping and not; far bits of bit strings.
guest repeated
        mov     edi, 0x20003
        mov     ecx, 0x1800
        mov     rax, 0x8877665544332211
        stc
        rep stosq                       // crosses pages in the middle of elements
        setc    al
        movzx   eax, al
        add     eax, edi
        out     REPORT, eax
        mov     eax, [0x20fff]
        out     REPORT, eax
        mov     byte ptr [0x20003], 0xee
        mov     esi, 0x20003
        mov     edi, 0x30005
        mov     ecx, 0x5001
        rep movsb
        lea     eax, [rsi + rdi]
        out     REPORT, eax
        mov     eax, [0x30004]
        out     REPORT, eax
        mov     eax, [0x35003]
        out     REPORT, eax
        mov     esi, 0x30005            // one byte ahead: the first one everywhere
        mov     edi, 0x30006
        mov     ecx, 0x2000
        rep movsb
        mov     eax, [0x32003]
        out     REPORT, eax
        rep movsd                       // RCX = 0
        lea     eax, [rsi + rdi]
        out     REPORT, eax
        mov     edi, 0x40000
        mov     ecx, 0x200
        xor     eax, eax
        rep stosq
        mov     ebx, 0x40800
        mov     ecx, 0x3fff             // bit 63 of 0x40ff8
        bts     qword ptr [rbx], rcx
        mov     r9, -0x4000             // bit 0 of 0x40000
        lock bts qword ptr [rbx], r9
        bt      dword ptr [rbx], r9d
        setc    al
        movzx   eax, al
        add     eax, [0x40ffc]
        add     eax, [0x40000]
        out     REPORT, eax
end_guest repeated

// Copies between pages 4 MiB apart, which a direct-mapped table of translations keeps in the same place.
guest far_copy
        mov     dword ptr [0x20ffc], 0x12345678
        mov     esi, 0x20000
        mov     edi, 0x420000
        mov     ecx, 0x400
        rep movsd
        mov     eax, [0x420ffc]
        out     REPORT, eax
end_guest far_copy

// Routes GSI 5 to vector 0x41 through the IOAPIC and waits for it.
guest io_apic
        mov     al, 0xff                // the 8259s hear GSI 5 too: mask them
        out     0x21, al
        out     0xa1, al
        mov     rbx, LOCAL_APIC
        mov     dword ptr [rbx + 0xf0], 0x1ff
        mov     rsi, IO_APIC
        mov     dword ptr [rsi], 0x10 + 5 * 2 + 1
        mov     dword ptr [rsi + 0x10], 0
        mov     dword ptr [rsi], 0x10 + 5 * 2
        mov     dword ptr [rsi + 0x10], 0x41
        mov     eax, 1
        out     REPORT, eax
        sti
        hlt
        cli
end_guest io_apic
handler io_apic, 0x80                   // vector 0x41
        mov     rbx, LOCAL_APIC
        mov     dword ptr [rbx + 0xb0], 0
        mov     eax, 0x41
        out     REPORT, eax
        iretq

// Rings doorbells that the host has connected to eventfds, and one it has not.
guest doorbell
        mov     edx, 0x600
        mov     eax, 7
        out     dx, ax
        mov     rbx, DEVICE_MMIO
        mov     dword ptr [rbx + 0x100], 3
        mov     dword ptr [rbx + 0x104], 4
end_guest doorbell

// Starts vCPU 1 by INIT and SIPI: real mode at 0x5000, where it writes 0x77 to port 0x10.
guest startup
        mov     edi, 0x5000
        lea     rsi, [rip + trampoline]
        mov     ecx, offset trampoline_end - trampoline
        cld
        rep movsb
        mov     rbx, LOCAL_APIC
        mov     dword ptr [rbx + 0xf0], 0x1ff
        mov     dword ptr [rbx + 0x310], 1 << 24
        mov     dword ptr [rbx + 0x300], 0x4500 // INIT, assert
        mov     dword ptr [rbx + 0x310], 1 << 24
        mov     dword ptr [rbx + 0x300], 0x4605 // SIPI, vector 5
1:      pause
        cmp     dword ptr [0x5100], 0x1234
        jne     1b
end_guest startup
trampoline:
        .code16
        mov     al, 0x77
        out     0x10, al
        xor     ax, ax
        mov     ds, ax
        movw    word ptr ds:[0x5102], 0
        movw    word ptr ds:[0x5100], 0x1234
1:      hlt
        jmp     1b
trampoline_end:
        .code64
        .skip   1024                    // every guest is copied as its first KiB
// What RDTSC and RDTSCP give after writes of IA32_TSC and IA32_TSC_ADJUST: bits above 2^44 ticks, RDTSCP's ECX; and
// CR4.TSD, which forbids both at CPL 3, in a handler of #GP.
guest time_stamp_counter
        lea     rbp, [rip + 7f]         // entered at CPL 3
        mov     ecx, 0xc0000103         // IA32_TSC_AUX
        mov     eax, 0x1234
        xor     edx, edx
        wrmsr
        mov     ecx, 0x10               // IA32_TSC = 5 * 2^44
        mov     edx, 0x5000
        xor     eax, eax
        wrmsr
        stc
        rdtsc
        setc    bl
        shr     edx, 12
        mov     eax, edx
        out     REPORT, eax             // 5
        movzx   eax, bl
        out     REPORT, eax             // 1
        mov     ecx, 0x3b               // IA32_TSC_ADJUST += 3 * 2^44
        rdmsr
        add     edx, 0x3000
        wrmsr
        jmp     .Ltime_goes_on
        handler time_stamp_counter, 0x80
        mov     eax, [rsp]              // the error code
        out     REPORT, eax             // 0
        mov     rax, [rsp + 8]
        sub     rax, r12
        out     REPORT, eax             // 0: RIP
end_guest time_stamp_counter_handler
.Ltime_goes_on:
        rdtscp
        shr     edx, 12
        mov     eax, edx
        out     REPORT, eax             // 8
        mov     eax, ecx
        out     REPORT, eax             // 0x1234
        mov     rax, cr4
        or      eax, 4                  // TSD
        mov     cr4, rax
        rdtsc                           // allowed at CPL 0
        shr     edx, 12
        mov     eax, edx
        out     REPORT, eax             // 8
        push    0x1b
        push    0x7000
        push    2
        push    0x23
        push    rbp
        iretq
7:      lea     r12, [rip + 8f]
        clc
8:      rdtsc

// A thousand system calls at CPL 3: SYSCALL and SYSRET keep and change what they should; then SYSRET to an address that
// is not canonical, which is #GP at CPL 0.
guest system_call
        lea     rax, [rip + .Lsystem_call_entry]
        mov     rdx, rax
        shr     rdx, 32
        mov     ecx, 0xc0000082         // IA32_LSTAR
        wrmsr
        mov     ecx, 0xc0000081         // IA32_STAR: kernel 8 and 0x10, user 0x23 and 0x1b
        xor     eax, eax
        mov     edx, 0x100008
        wrmsr
        mov     ecx, 0xc0000084         // IA32_FMASK: CF, IF, DF
        mov     eax, 0x601
        xor     edx, edx
        wrmsr
        push    0x1b
        push    0x8000
        push    0x202
        push    0x23
        lea     rax, [rip + .Lsystem_call_user]
        push    rax
        iretq
        handler system_call, 0x80
        mov     eax, [rsp]              // 0: the error code
        out     REPORT, eax
        mov     eax, [rsp + 16]         // 8: CS
        out     REPORT, eax
        mov     eax, ebp                // rounds with nothing wrong
        out     REPORT, eax
end_guest system_call_handler
.Lsystem_call_entry:
        pushfq
        pop     rsi
        mov     rdi, r11
        and     rdi, ~0x601
        cmp     rdi, rsi
        jne     .Lsystem_call_wrong
        mov     edi, cs
        cmp     edi, 8
        jne     .Lsystem_call_wrong
        mov     edi, ss
        cmp     edi, 0x10
        jne     .Lsystem_call_wrong
        test    eax, eax
        jne     1f
        mov     rcx, 0x800000000000
1:      sysretq
.Lsystem_call_wrong:
        mov     ebp, 0x80000000
        sysretq
.Lsystem_call_user:
        mov     ebx, 1001
        xor     ebp, ebp
1:      dec     ebx
        mov     eax, ebx
        imul    edx, ebx, 0x7654321
        mov     r10d, edx
        sahf                            // any flags
        lea     r14, [rip + 2f]
        cld
        test    ebx, 1
        jz      3f
        std
        add     edx, edx
3:      mov     eax, ebx
        pushfq
        pop     r13
        syscall
2:      pushfq
        pop     rdx
        cld
        cmp     rdx, r13
        jne     .Lsystem_call_wrong_user
        cmp     r11, r13
        jne     .Lsystem_call_wrong_user
        cmp     rcx, r14
        jne     .Lsystem_call_wrong_user
        cmp     eax, ebx
        jne     .Lsystem_call_wrong_user
        mov     edx, cs
        cmp     edx, 0x23
        jne     .Lsystem_call_wrong_user
        push    -1
        mov     word ptr [rsp], ss
        pop     rdx
        cmp     edx, 0xffff001b
        jne     .Lsystem_call_wrong_user
        mov     r10, -1
        mov     r10w, cs
        cmp     r10d, 0xffff0023
        jne     .Lsystem_call_wrong_user
        inc     ebp
        jmp     1b
.Lsystem_call_wrong_user:
        mov     ebp, 0x40000000
        jmp     1b

// The same two pages of user code at five places: low, three times far up, and far up with another second page. Each
// call adds up what RIP-relative operands, calls and an instruction across the pages see there, and calls the next.
guest shared_object
        jmp     .Lshared_object_setup
        handler shared_object, 0x80
        mov     eax, ebx
        out     REPORT, eax             // the sum
        mov     rax, rbx
        shr     rax, 32
        out     REPORT, eax
        mov     eax, FUNCTION
        out     REPORT, eax
        mov     eax, INNER
        out     REPORT, eax
end_guest shared_object_handler
.Lshared_object_setup:
        mov     rax, [0x8000]           // PML4
        mov     [0x8008], rax
        mov     [0x8010], rax
        mov     [0x8018], rax
        mov     qword ptr [0x8020], 0x40007
        mov     qword ptr [0x40000], 0x41007
        mov     qword ptr [0x41000], 0x42007
        mov     edi, 0x42000
        mov     eax, 7
1:      mov     [rdi], rax
        add     eax, 0x1000
        add     edi, 8
        cmp     eax, 0x200000
        jb      1b
        mov     qword ptr [0x42188], 0x33007    // of page 0x31
        cld
        lea     rsi, [rip + .Lobject_function]
        mov     edi, FUNCTION
        mov     ecx, OBJECT_SIZE
        rep movsb
        mov     esi, 0x31000
        mov     edi, 0x33000
        mov     ecx, OBJECT_SIZE - FIRST_PART
        rep movsb
        mov     dword ptr [0x33011 + VARIANT], 0x2222
        push    0x1b
        push    0x8000
        push    2
        push    0x23
        lea     rax, [rip + 1f]
        push    rax
        iretq
1:      xor     ebx, ebx
        mov     r12d, 1000
2:      mov     ecx, 3
        mov     r13d, r12d
        lea     r14, [rip + .Lobject_next]
        call    r14
        dec     r12d
        jnz     2b
        hlt                             // #GP: the handler reports
.Lobject_next:                          // calls the function at place R13 % 5
        mov     eax, r13d
        xor     edx, edx
        mov     esi, 5
        div     esi
        shl     rdx, 39
        mov     edi, FUNCTION
        add     rdi, rdx
        jmp     rdi
.Lobject_function:
        lea     rdx, [rip + .Lobject_function]
        add     rbx, rdx
        add     rbx, [rip + .Lobject_constant]
        call    .Lobject_inner
        test    ecx, ecx
        jz      1f
        dec     ecx
        inc     r13d
        call    r14
1:      lea     rdx, [rip + .Lobject_function]
        add     rbx, rdx
        jmp     1f
.Lobject_constant:
        .quad   0x1111111111
        .org    .Lobject_function + FIRST_PART - 5
1:      mov     rdx, 0x1111111112345678 // across the pages
        add     rbx, rdx
        ret
        .org    .Lobject_function + FIRST_PART + 0x10
.Lobject_inner:
        lea     rdx, [rip + .Lobject_inner]
        add     rbx, rdx
        .org    .Lobject_inner + VARIANT, 0x90
        mov     edx, 0x1111
        add     rbx, rdx
        ret

        .section .note.GNU-stack, "", @progbits
