// The guest's /init as bytes inside the host program: extern "C" const unsigned char tenon_guest_init_begin[], ..._end[].
        .section .rodata.tenon_guest_init, "a", @progbits
        .globl  tenon_guest_init_begin
        .globl  tenon_guest_init_end
        .balign 16
tenon_guest_init_begin:
        .incbin "tenon_guest_init"
tenon_guest_init_end:
        .byte   0
        .section .note.GNU-stack, "", @progbits
