// Page tables that change. RCX: rounds; R14: the linear address; R15: its page-table entry.
        .include "smp/guest.inc"

// The last vCPU points the entry at RBX and RBP in turn and publishes the round at [R13]; the others drop the translation
// and must find the new page: its first doubleword is the round's lowest bit, and a function at +64 returns the same. R12 counts
// those that did not.
guest remap
        xor     r12d, r12d
        lea     rax, [rsi - 1]
        cmp     rdi, rax
        je      5f
        xor     r11d, r11d
1:      inc     r11
2:      cmp     [r13], r11
        jae     3f
        pause
        jmp     2b
3:      test    r11d, 4
        jnz     10f
        invlpg  [r14]
        jmp     11f
10:     mov     rax, cr3
        mov     cr3, rax
11:     mov     edx, r11d
        and     edx, 1
        cmp     [r14], edx
        setne   al
        movzx   eax, al
        add     r12, rax
        mov     [r14 + 128 + rdi * 4], r11d // stays in this page
        lea     rax, [r14 + 64]
        call    rax
        cmp     eax, edx
        setne   al
        movzx   eax, al
        add     r12, rax
        lock inc qword ptr [r13 + 64]
        cmp     r11, rcx
        jne     1b
        jmp     7f
5:      xor     r11d, r11d
        xor     r8d, r8d
        dec     rsi
6:      inc     r11
        mov     rax, rbx
        test    r11d, 1
        cmovnz  rax, rbp
        mov     [r15], rax
        mov     [r13], r11
        add     r8, rsi
8:      cmp     [r13 + 64], r8
        je      4f
        pause
        jmp     8b
4:      cmp     r11, rcx
        jne     6b
7:
end_guest remap

// vCPU 0 changes bits 9 and 52 up of the entry with locked instructions and clears A and D now and then; the others drop the
// translation and read and write through it, which sets A and D. No change of anybody may be lost.
guest accessed_dirty
        mov     r11, 1
        meet    r11
        test    edi, edi
        jnz     5f
        mov     rdx, 3 << 52
        mov     rbx, 2 << 52
1:      lock add [r15], rdx
        lock btc qword ptr [r15], 9
        lock and byte ptr [r15], 0x9f
        lock sub [r15], rbx
        dec     rcx
        jnz     1b
        jmp     9f
5:      mov     r12d, [r14]
2:      invlpg  [r14]
        mov     eax, [r14]
        invlpg  [r14]
        mov     [r14 + rdi * 4], ecx
        dec     rcx
        jnz     2b
9:      mov     r11, 2
        meet    r11
        invlpg  [r14]
        mov     [r14 + rdi * 4], edi
end_guest accessed_dirty

        .section .note.GNU-stack, "", @progbits
