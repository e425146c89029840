//! Exceptions and interrupts: descriptor tables, entry stubs, and a table of hooks by vector.
//!
//! Stable Rust has no interrupt calling convention, so each vector has a stub of a few instructions that pushes its
//! number; one common stub saves the general registers and calls [`dispatch`]. Nothing else needs saving: the target
//! has no vector registers and no red zone. While a hook runs, its kind is counted in the CPU's area, which is how
//! [`percpu::context`] knows.
//!
//! Four events have stacks of their own, because the stack they meet may be full or in the middle of a switch: double
//! fault, non-maskable interrupt, debug exception, machine check. Such an event must not meet itself on its stack. A
//! hook for the last three must therefore not fault: returning from the fault would let the next non-maskable interrupt
//! in.
#![allow(unsafe_code, reason = "descriptor tables, and the entry stubs")]

use core::arch::{asm, global_asm};
use core::mem;
use core::sync::atomic::{AtomicPtr, Ordering};

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, Segment};
use x86_64::instructions::tables::{lidt, load_tss};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use crate::percpu::{self, HANDLERS, PerCpu, UNMASKABLE};
use crate::{apic, cpu};

/// Debug exception: single step, hardware breakpoint.
pub const DEBUG: u8 = 1;
/// Non-maskable interrupt.
pub const NMI: u8 = 2;
/// The breakpoint instruction.
pub const BREAKPOINT: u8 = 3;
/// Invalid instruction.
pub const INVALID_OPCODE: u8 = 6;
/// Double fault.
pub const DOUBLE_FAULT: u8 = 8;
/// General protection fault.
pub const GENERAL_PROTECTION: u8 = 13;
/// Page fault; [`cpu::fault_address`] tells the address.
pub const PAGE_FAULT: u8 = 14;
/// Machine check.
pub const MACHINE_CHECK: u8 = 18;
/// The first vector that is an interrupt and not an exception.
pub const FIRST_INTERRUPT: u8 = 32;
/// Usual for the timer of the local APIC.
pub const TIMER: u8 = 0x40;
/// What [`smp::kick`](crate::smp::kick) sends.
pub const KICK: u8 = 0x41;
/// For other interrupts between CPUs.
pub const CALL: u8 = 0x42;
/// An interrupt that went away before it was taken.
pub const SPURIOUS: u8 = 0xff;

/// Vectors with a stack of their own; the position gives the stack.
pub(crate) const OWN_STACK: [u8; 4] = [DOUBLE_FAULT, NMI, DEBUG, MACHINE_CHECK];

/// What was interrupted. A hook may change it, and so change where and how the interrupted code goes on.
#[repr(C)]
#[derive(Debug)]
#[expect(missing_docs, reason = "the registers of the CPU")]
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    /// Which vector this is.
    pub vector: u64,
    /// The error code of exceptions that have one, else 0.
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// A handler. It runs with interrupts off.
pub type Hook = fn(&mut TrapFrame);

static HOOKS: [AtomicPtr<()>; 256] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 256];

/// Lets `hook` handle `vector` on every CPU, or nobody. An exception that nobody handles is a panic; an interrupt is
/// acknowledged after its hook.
pub fn hook(vector: u8, hook: Option<Hook>) {
    let place = hook.map_or(core::ptr::null_mut(), |hook| hook as *mut ());
    // Release: pairs with the Acquire in `hook_of`; the hook sees what was prepared for it.
    HOOKS[vector as usize].store(place, Ordering::Release);
}

fn hook_of(vector: u8) -> Option<Hook> {
    let place = HOOKS[vector as usize].load(Ordering::Acquire);
    // SAFETY: `hook` stores either a `Hook` or null, and `Option<Hook>` is a function pointer or null.
    unsafe { mem::transmute::<*mut (), Option<Hook>>(place) }
}

extern "C" fn dispatch(frame: &mut TrapFrame) {
    let vector = frame.vector as u8;
    percpu::this().count(vector >= FIRST_INTERRUPT);
    match hook_of(vector) {
        Some(hook) => hook(frame),
        None if vector == SPURIOUS => {}
        None => unhandled(frame),
    }
    if vector >= FIRST_INTERRUPT && vector != SPURIOUS {
        apic::end_of_interrupt();
    }
}

fn unhandled(frame: &TrapFrame) -> ! {
    let name = match frame.vector as u8 {
        0 => "divide error",
        DEBUG => "debug exception",
        NMI => "non-maskable interrupt",
        BREAKPOINT => "breakpoint",
        INVALID_OPCODE => "invalid opcode",
        DOUBLE_FAULT => "double fault (stack overflow?)",
        GENERAL_PROTECTION => "general protection fault",
        PAGE_FAULT => "page fault",
        MACHINE_CHECK => "machine check",
        FIRST_INTERRUPT.. => "interrupt",
        _ => "exception",
    };
    let TrapFrame { vector, error, rip, rsp, rflags, .. } = frame;
    let address = cpu::fault_address();
    panic!(
        "unhandled {name}: vector {vector}, error {error:#x}, rip {rip:#x}, rsp {rsp:#x}, rflags {rflags:#x}, \
         last fault address {address:#x}"
    );
}

// 256 stubs of 16 bytes each. Those of exceptions without an error code push a 0 in its place, so that all frames look
// alike. At `call`, the CPU's alignment of the stack plus 22 words make it a multiple of 16, as the convention asks.
global_asm!(
    ".section .text.entry_stubs, \"ax\", @progbits",
    ".balign 16",
    ".global entry_stubs",
    "entry_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    ".if (vector != 8) && (vector != 17) && (vector != 21) && (vector != 29) && (vector != 30) && ((vector < 10) || (vector > 14))",
    "push 0",
    ".endif",
    "push vector",
    "jmp entry_common",
    ".set vector, vector + 1",
    ".endr",
    "entry_common:",
    "push rax", "push rbx", "push rcx", "push rdx", "push rsi", "push rdi", "push rbp",
    "push r8", "push r9", "push r10", "push r11", "push r12", "push r13", "push r14", "push r15",
    "cld",
    "mov ebx, 1",
    "mov eax, {unmaskable}",
    "cmp dword ptr [rsp + 15 * 8], {first_interrupt}",
    "cmovb ebx, eax",
    "add dword ptr gs:[{handlers}], ebx",
    "mov rdi, rsp",
    "call {dispatch}",
    "sub dword ptr gs:[{handlers}], ebx",
    "pop r15", "pop r14", "pop r13", "pop r12", "pop r11", "pop r10", "pop r9", "pop r8",
    "pop rbp", "pop rdi", "pop rsi", "pop rdx", "pop rcx", "pop rbx", "pop rax",
    "add rsp, 16",
    "iretq",
    ".text",
    unmaskable = const UNMASKABLE,
    first_interrupt = const FIRST_INTERRUPT,
    handlers = const HANDLERS,
    dispatch = sym dispatch,
);

const STUB_BYTES: u64 = 16;

unsafe extern "C" {
    /// Only its address means something.
    safe static entry_stubs: u8;
}

/// An entry of the interrupt descriptor table.
#[repr(C, align(16))]
#[derive(Clone, Copy, Default)]
struct Gate([u64; 2]);

impl Gate {
    /// To `handler`, in ring 0, with interrupts off, on the stack of that number (0: the current one).
    const fn new(handler: u64, code: u16, stack: u64) -> Self {
        const PRESENT_INTERRUPT_GATE: u64 = 0x8e00 << 32;
        let low = handler & 0xffff | (code as u64) << 16 | stack << 32 | PRESENT_INTERRUPT_GATE;
        Self([low | (handler >> 16 & 0xffff) << 48, handler >> 32])
    }
}

static GATES: Once<[Gate; 256]> = Once::new();

/// What the CPU itself wants in memory, beside its [`PerCpu`].
pub(crate) struct CpuTables {
    gdt: GlobalDescriptorTable,
    tss: TaskStateSegment,
    pub(crate) area: PerCpu,
}

impl CpuTables {
    pub(crate) const fn new(area: PerCpu) -> Self {
        Self { gdt: GlobalDescriptorTable::new(), tss: TaskStateSegment::new(), area }
    }
}

/// Loads tables of this CPU's own, in the only moment in which it has none that work; interrupts are off. `stacks` are
/// the tops of the stacks for [`OWN_STACK`]. Others will find the area if it is `listed`.
pub(crate) fn load(tables: &'static mut CpuTables, stacks: [u64; OWN_STACK.len()], listed: bool) {
    let CpuTables { gdt, tss, area } = tables;
    let mut table = [VirtAddr::zero(); 7];
    table.iter_mut().zip(stacks).for_each(|(entry, top)| *entry = VirtAddr::new(top));
    tss.interrupt_stack_table = table;
    let code = gdt.append(Descriptor::kernel_code_segment());
    let task = gdt.append(Descriptor::tss_segment(tss));
    gdt.load();
    // SAFETY: the selector is that of the 64-bit code segment just loaded.
    unsafe { CS::set_reg(code) };
    // SAFETY: the selector is that of a task state segment that lives for ever, in a table just filled: not busy yet.
    unsafe { load_tss(task) };
    percpu::install(area, listed);

    let gates = GATES.call_once(|| {
        let stubs = (&raw const entry_stubs).addr() as u64;
        core::array::from_fn(|vector| {
            let stack = OWN_STACK.iter().position(|&own| usize::from(own) == vector).map_or(0, |index| index + 1);
            Gate::new(stubs + STUB_BYTES * vector as u64, code.0, stack as u64)
        })
    });
    let pointer = DescriptorTablePointer { limit: (size_of_val(gates) - 1) as u16, base: VirtAddr::from_ptr(gates) };
    // SAFETY: 256 well-formed gates that live for ever, to stubs of this kernel's code segment.
    unsafe { lidt(&pointer) };
}

/// Reads one byte at `address`, or `None` if that is a page fault: the usual way of testing a doubtful address. It
/// takes the page fault's hook for the time being, so only one CPU may probe at a time.
pub fn probe(address: u64) -> Option<u8> {
    fn skip(frame: &mut TrapFrame) {
        // The probe below says with rcx = 0 that it failed, and with rdx where to go on.
        frame.rcx = 0;
        frame.rip = frame.rdx;
    }
    let before = hook_of(PAGE_FAULT);
    hook(PAGE_FAULT, Some(skip));
    let (ok, value): (u64, u64);
    // SAFETY: reads at most a byte; where there is nothing to read, the hook continues behind the instruction.
    unsafe {
        asm!("lea rdx, [rip + 2f]", "mov ecx, 1", "movzx eax, byte ptr [{address}]", "2:",
             address = in(reg) address, out("rax") value, out("rcx") ok, out("rdx") _, options(nostack, readonly));
    }
    hook(PAGE_FAULT, before);
    (ok == 1).then_some(value as u8)
}
