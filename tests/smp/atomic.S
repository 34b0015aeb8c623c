// Locked read-modify-write instructions of several vCPUs on one operand. RBX: the operand; RCX: iterations.
        .include "smp/guest.inc"

// Each iteration adds 14 in all and leaves the rest as it was, so the sum is exact where every step is atomic.
.macro  adders name, size, accumulator, temporary
guest adders_\name
        mov     r11, 1
        meet    r11
1:      lock inc \size ptr [rbx]
        lock add \size ptr [rbx], 3
        lock sub \size ptr [rbx], 2
        mov     eax, 5
        lock xadd [rbx], \accumulator
        lock dec \size ptr [rbx]
        stc
        lock adc \size ptr [rbx], 4
        stc
        lock sbb \size ptr [rbx], 1
        mov     \accumulator, [rbx]
2:      mov     \temporary, \accumulator
        add     \temporary, 5
        lock cmpxchg [rbx], \temporary
        jne     2b
        dec     rcx
        jnz     1b
end_guest adders_\name
.endm
        adders  byte, byte, al, dl
        adders  word, word, ax, dx
        adders  dword, dword, eax, edx
        adders  qword, qword, rax, rdx

// Each vCPU owns the bit of its number and four of the next ones; R12 counts bits that were not as it had left them.
guest bits
        mov     r11, 1
        meet    r11
        xor     r12d, r12d
        mov     edx, 0x1000
        push    rcx
        mov     ecx, edi
        shl     edx, cl
        pop     rcx
        mov     eax, edi
1:      lock bts dword ptr [rbx], eax
        adc     r12, 0
        lock btr dword ptr [rbx], eax
        cmc
        adc     r12, 0
        lock btc dword ptr [rbx], eax
        adc     r12, 0
        lock or [rbx], edx
        test    [rbx], edx
        setz    r8b
        movzx   r8d, r8b
        add     r12, r8
        lock xor [rbx], edx
        test    [rbx], edx
        setnz   r8b
        movzx   r8d, r8b
        add     r12, r8
        mov     r9d, 1
        push    rcx
        mov     ecx, edi
        shl     r9d, cl
        pop     rcx
        not     r9d
        lock and [rbx], r9d
        bt      dword ptr [rbx], eax
        adc     r12, 0
        dec     rcx
        jnz     1b
end_guest bits

// NOT and NEG an even number of times leave what was there.
guest inversions
        mov     r11, 1
        meet    r11
1:      lock not qword ptr [rbx]
        lock neg qword ptr [rbx + 0x80]
        dec     rcx
        jnz     1b
end_guest inversions

// Tokens: RAX holds one at first, the operand another. XCHG moves them around and must neither lose nor make any.
.macro  tokens name, register
guest tokens_\name
        mov     r11, 1
        meet    r11
1:      xchg    [rbx], \register
        dec     rcx
        jnz     1b
end_guest tokens_\name
.endm
        tokens  dword, eax
        tokens  qword, rax

// An even vCPU adds 2^32 by locked instructions to the quadword of whose bytes 0 and 1 the odd ones own one each: plain stores there
// must stay although the others write the whole quadword all the time. R12 counts those that did not.
guest neighbours
        mov     r11, 1
        meet    r11
        xor     r12d, r12d
        test    edi, 1
        jnz     3f
        mov     rdx, 1 << 32
1:      lock add [rbx], rdx
        mov     rax, rdx
        lock xadd [rbx], rax
        dec     rcx
        jnz     1b
        jmp     5f
3:      mov     r9, rdi
        shr     r9, 1
        add     rbx, r9
4:      mov     [rbx], cl
        mov     eax, 3                  // time for the others
2:      dec     eax
        jnz     2b
        cmp     [rbx], cl
        setne   al
        movzx   eax, al
        add     r12, rax
        dec     rcx
        jnz     4b
5:
end_guest neighbours

// CMPXCHG8B and CMPXCHG16B: the low half counts by 1, the high half by 3. R12 counts pairs seen that do not belong together.
.macro  pairs name, instruction, size, a, b, c, d
guest pairs_\name
        mov     r11, 1
        meet    r11
        mov     rbp, rbx
        mov     r15, rcx
        xor     r12d, r12d
        xor     eax, eax
        xor     edx, edx
1:      lea     \b, [\a + \a * 2]
        cmp     \b, \d
        je      3f
        inc     r12
3:      mov     \b, \a
        add     \b, 1
        mov     \c, \d
        add     \c, 3
        lock \instruction \size ptr [rbp]
        jne     1b
        mov     \a, \b                  // what is there unless somebody is faster
        mov     \d, \c
        dec     r15
        jnz     1b
end_guest pairs_\name
.endm
        pairs   8, cmpxchg8b, qword, eax, ebx, ecx, edx
        pairs   16, cmpxchg16b, xmmword, rax, rbx, rcx, rdx

        .section .note.GNU-stack, "", @progbits
