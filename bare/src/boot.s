# The way from the loader to Rust, once for the boot CPU and once for each of the others. AT&T syntax.
#
# The boot CPU comes by PVH: 32-bit protected mode, paging off, %ebx = physical address of the start info. The others
# come by a startup interrupt: real mode, at the page the trampoline was copied to. Both meet in `long_mode`, which
# needs no stack: it returns to the address in %ebp.
#
# These tables map the first 4 GiB three times: at 0 (where this code runs), at 0xffff800000000000 (the window on
# physical memory) and, its first GiB, at 0xffffffff80000000 (the kernel). Pages are 2 MiB: not every CPU has larger
# ones. Rust soon replaces the tables by better ones; the other CPUs pass through these on their way.

    .section .note.pvh, "a", @note
    .balign 4
    .long 2f - 1f                   # length of the name
    .long 4f - 3f                   # length of the contents
    .long 18                        # XEN_ELFNOTE_PHYS32_ENTRY
1:  .asciz "Xen"
2:  .balign 4
3:  .quad pvh_entry                 # the loader reads eight bytes in a 64-bit file
4:

    .section .boot, "awx", @progbits
    .code32
    .global pvh_entry
pvh_entry:
    cli
    cld
    rdtsc                           # the first thing to know about booting: when it began
    movl %eax, %esi
    movl %edx, %esp                 # there is no stack yet; the register is free

    movl $level_3_low + 3, level_4              # 3: present, writable
    movl $level_3_low + 3, level_4 + 8 * 256
    movl $level_3_upper + 3, level_4 + 8 * 511
    movl $level_2 + 3, level_3_upper + 8 * 510
    movl $level_2, %edi                     # four page directories in a row
    movl $0x83, %eax                        # present, writable, a large page
    movl $4 * 512, %ecx
1:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 1b
    movl $level_2 + 3, %eax
    movl $level_3_low, %edi
    movl $4, %ecx
1:  movl %eax, (%edi)
    addl $4096, %eax
    addl $8, %edi
    loop 1b

    movl $1f, %ebp
    jmp long_mode
1:  ljmpl $8, $2f
    .code64
2:  movl %esp, %eax                         # the upper halves are undefined after the switch
    shlq $32, %rax
    movl %esi, %esi
    orq %rax, %rsi
    movl %ebx, %edi
    movabsq $boot_upper, %rax
    jmpq *%rax

    .code32
long_mode:
    movl %cr4, %eax
    orl $0xa0, %eax                         # PAE, PGE
    movl %eax, %cr4
    movl $level_4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx                  # EFER
    rdmsr
    orl $0x900, %eax                        # LME, NXE
    wrmsr
    movl %cr0, %eax
    andl $0x9fffffff, %eax                  # caches on: a CPU that was reset has them off
    orl $0x80010001, %eax                   # PG, WP, PE
    movl %eax, %cr0
    lgdtl descriptors_at
    jmp *%ebp

ap_protected:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $1f, %ebp
    jmp long_mode
1:  ljmpl $8, $2f
    .code64
2:  movabsq $ap_upper, %rax
    jmpq *%rax

    .balign 8
descriptors:
    .quad 0
    .quad 0x00af9a000000ffff                # 0x08: 64-bit code
    .quad 0x00cf92000000ffff                # 0x10: data
    .quad 0x00cf9a000000ffff                # 0x18: 32-bit code
descriptors_at:
    .word . - descriptors - 1
    .long descriptors

    .balign 4096
level_4: .skip 4096                         # level 4
level_3_upper: .skip 4096                         # level 3 of the upper 2 GiB
level_3_low: .skip 4096                         # level 3 of the first 4 GiB
level_2: .skip 4 * 4096                     # level 2, 2048 large pages

    .section .text.boot_upper, "ax", @progbits
    .code64
boot_upper:
    xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw %ax, %fs
    movw %ax, %gs
    leaq boot_stack_top(%rip), %rsp
    xorl %ebp, %ebp                         # the end of every chain of frame pointers
    callq {boot_entry}                      # (start info, time stamp)
    ud2

ap_upper:
    xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw %ax, %fs
    movw %ax, %gs
    movq {ap_tables}(%rip), %rax
    movq %rax, %cr3                         # the stack is only in these tables
    movq {ap_stack}(%rip), %rsp
    xorl %ebp, %ebp
    callq {ap_entry}
    ud2

    .section .bss.boot_stack, "aw", @nobits
    .balign 4096
    .global boot_stack_bottom
boot_stack_bottom:
    .skip 256 * 1024             # unoptimised code moves whole memory maps through it
boot_stack_top:

# Copied to some frame below 1 MiB: it finds its own parts relative to its code segment, which starts at that frame.
    .section .rodata.trampoline, "a", @progbits
    .code16
    .global trampoline_start, trampoline_end
trampoline_start:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl trampoline_descriptors_at - trampoline_start
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, $ap_protected
trampoline_descriptors_at:
    .word 31
    .long descriptors
trampoline_end:
    .code64
    .text
