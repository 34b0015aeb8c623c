// Integer and memory loops for engine_benchmark, 64-bit, entered at CPL 0 by flat_guest; each ends with OUT to port 0xf5.
        .intel_syntax noprefix
        .section .rodata.guest, "a", @progbits
        .set DONE, 0xf5

.macro  guest name
        .balign 64
        .globl  tenon_bench_\name
tenon_bench_\name:
.endm
.macro  end_guest
        out     DONE, al
9:      hlt
        jmp     9b
.endm

// Register arithmetic: a shift-xor generator with a data-dependent branch.
guest arithmetic
        mov     ecx, 2000000
        mov     eax, 12345
        xor     edx, edx
1:      mov     ebx, eax
        shl     ebx, 13
        xor     eax, ebx
        mov     ebx, eax
        shr     ebx, 17
        xor     eax, ebx
        mov     ebx, eax
        shl     ebx, 5
        xor     eax, ebx
        test    al, 1
        jz      2f
        add     rdx, rax
2:      dec     ecx
        jnz     1b
end_guest

// Sieve of Eratosthenes over 1 MiB of bytes.
guest sieve
        mov     esi, 0x100000
        mov     r8d, 2
1:      mov     r9d, r8d
        imul    r9d, r8d
        cmp     r9d, 0x100000
        jae     3f
        cmp     byte ptr [rsi + r8], 0
        jne     2f
4:      mov     byte ptr [rsi + r9], 1
        add     r9d, r8d
        cmp     r9d, 0x100000
        jb      4b
2:      inc     r8d
        jmp     1b
3:
end_guest

// Recursive Fibonacci: calls, returns, stack.
guest calls
        mov     edi, 27
        call    5f
        jmp     6f
5:      cmp     edi, 2
        jae     1f
        mov     eax, edi
        ret
1:      push    rbx
        push    rdi
        dec     edi
        call    5b
        mov     ebx, eax
        pop     rdi
        sub     edi, 2
        call    5b
        add     eax, ebx
        pop     rbx
        ret
6:
end_guest

// Binary search tree of 4096 nodes in an array: dependent loads and unpredictable branches.
guest search
        mov     rsi, 0x100000
        xor     ecx, ecx
1:      lea     eax, [rcx + rcx * 2]    // node i: key 3 * i
        mov     [rsi + rcx * 8], rax
        inc     ecx
        cmp     ecx, 4096
        jb      1b
        mov     edi, 200000
        mov     r8d, 1
2:      imul    r8d, r8d, 1103515245
        add     r8d, 12345
        mov     edx, r8d
        shr     edx, 18                 // key
        xor     eax, eax                // low
        mov     ebx, 4096               // high
3:      lea     ecx, [rax + rbx]
        shr     ecx, 1
        cmp     [rsi + rcx * 8], rdx
        jbe     4f
        mov     ebx, ecx
        jmp     5f
4:      lea     eax, [rcx + 1]
5:      cmp     eax, ebx
        jb      3b
        dec     edi
        jnz     2b
end_guest

// SSE2 integer arithmetic on a 16 KiB buffer.
guest vectors
        mov     edx, 400
1:      mov     esi, 0x100000
        mov     ecx, 1024
        pxor    xmm0, xmm0
2:      movdqu  xmm1, [rsi]
        paddd   xmm0, xmm1
        pslld   xmm1, 1
        movdqu  [rsi], xmm1
        add     rsi, 16
        dec     ecx
        jnz     2b
        dec     edx
        jnz     1b
end_guest
        .skip   1024
        .section .note.GNU-stack, "", @progbits
