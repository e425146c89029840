//! From the loader to a running kernel on all CPUs.
//!
//! 1. `boot.s` enters long mode with makeshift tables for the first 4 GiB and calls [`boot_entry`].
//! 2. What the firmware says is read: the memory map, the command line, where the ACPI tables are.
//! 3. What must not be overwritten is reserved; early memory deals out the rest.
//! 4. Page tables for all memory, a stack and an area for each CPU; then the switch to both.
//! 5. The other CPUs start; [`kernel_main`](crate::kernel) runs with interrupts on.
//!
//! A step that cannot go on panics, which ends the machine with a message. Missing or damaged ACPI tables are no such
//! step: see [`topology`](crate::topology).
#![allow(unsafe_code, reason = "entry points, control registers, the linker's symbols")]

use core::arch::{asm, global_asm};
use core::slice;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::acpi::{PhysicalMemory, Tables};
use crate::early::{EarlyMemory, Owner};
use crate::idt::{self, CpuTables, OWN_STACK};
use crate::machine::{self, Machine};
use crate::memory_map::{FRAME_BYTES, MemoryMap, PhysRange, RegionKind};
use crate::paging::{Access, LARGE, MapError, Mapper, SMALL};
use crate::percpu::{self, IrqLock, PerCpu};
use crate::physical::{self, FirmwareMemory, WINDOW, WINDOW_BYTES, WindowTables};
use crate::pvh::{self, StartInfo};
use crate::topology::{MAX_CPUS, Topology};
use crate::{apic, boot_heap, cpu, serial, smp};

/// Where the other CPUs can begin: a startup interrupt names a frame by eight bits.
const TRAMPOLINE_RANGE: PhysRange = PhysRange::new(FRAME_BYTES, 256 * FRAME_BYTES).expect("ordered");
/// APIC numbers that a command to the local APIC can name; the last one means all of them.
const APIC_LIMIT: u32 = 0xff;
/// Where the kernel's image is mapped: its physical address plus this.
const UPPER: u64 = 0xffff_ffff_8000_0000;
/// Where stacks are mapped, each CPU's at a multiple of [`STACK_STRIDE`].
const STACKS: u64 = 0xffff_a000_0000_0000;
const STACK_STRIDE: u64 = 256 << 10;
/// The stack of ordinary code, then those of [`OWN_STACK`]. Below each is a page that is not mapped.
const STACK_BYTES: [u64; 1 + OWN_STACK.len()] = [128 << 10, 16 << 10, 16 << 10, 16 << 10, 16 << 10];

const _: () = assert!(stacks_bytes() <= STACK_STRIDE);

const fn stacks_bytes() -> u64 {
    let (mut sum, mut index) = (0, 0);
    while index < STACK_BYTES.len() {
        sum += SMALL + STACK_BYTES[index];
        index += 1;
    }
    sum
}

global_asm!(
    include_str!("boot.s"),
    boot_entry = sym boot_entry,
    ap_entry = sym ap_entry,
    ap_tables = sym AP_TABLES,
    ap_stack = sym AP_STACK,
    options(att_syntax)
);

unsafe extern "C" {
    safe static image_start: u8;
    safe static image_end: u8;
    safe static text_start: u8;
    safe static rodata_start: u8;
    safe static data_start: u8;
    safe static boot_stack_bottom: [AtomicU64; 512];
    safe static trampoline_start: u8;
    safe static trampoline_end: u8;
}

unsafe extern "Rust" {
    /// What the kernel does; [`kernel!`](crate::kernel) defines it.
    safe fn pagemill_kernel_main();
}

/// What a starting CPU finds: the page tables, its stack, and its number, which it takes by putting back 0.
static AP_TABLES: AtomicU64 = AtomicU64::new(0);
static AP_STACK: AtomicU64 = AtomicU64::new(0);
static AP_NUMBER: AtomicU32 = AtomicU32::new(0);

/// Tables of CPUs that have not started, by number.
static CPU_TABLES: lock_api::Mutex<IrqLock, [Option<&'static mut CpuTables>; MAX_CPUS]> =
    lock_api::Mutex::new([const { None }; MAX_CPUS]);

/// The boot CPU's until it has an area and tables like the others.
static FIRST: lock_api::Mutex<IrqLock, CpuTables> = lock_api::Mutex::new(CpuTables::new(PerCpu::new(0, 0, 0)));

/// The linker's symbols as physical addresses.
fn image() -> PhysRange {
    let (start, end) = ((&raw const image_start).addr(), (&raw const image_end).addr());
    PhysRange::new(start as u64, end as u64).expect("the image has a beginning and an end")
}

/// The first lines of Rust: `start_info` is a physical address, `began` the time stamp of the first instruction.
extern "C" fn boot_entry(start_info: u64, began: u64) -> ! {
    load_first_tables();
    serial::init();
    apic::mask_legacy();
    let machine = read_firmware(start_info, began);
    let root = build_page_tables(machine).unwrap_or_else(|error| panic!("cannot map memory: {error:?}"));
    prepare_cpus(machine);
    // Relaxed: no other CPU runs yet.
    AP_TABLES.store(root, Ordering::Relaxed);
    continue_at(root, stack_top(0, 0), boot_main)
}

/// Makes exceptions show from here on. They share one stack: good enough for a message.
fn load_first_tables() {
    static STACK: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];
    percpu::install_before_locks();
    let tables = lock_api::MutexGuard::leak(FIRST.lock());
    let top = STACK.as_ptr_range().end.addr() as u64;
    idt::load(tables, [top; OWN_STACK.len()], false);
}

/// Steps 2 and 3.
fn read_firmware(start_info: u64, began: u64) -> &'static Machine {
    // SAFETY: nothing but the image is written until early memory deals out frames, which it does only after everything
    // found here is reserved.
    let firmware = unsafe { FirmwareMemory::new(image()) };
    let bytes = |range: Option<PhysRange>, what: &str| {
        range.and_then(|range| firmware.bytes(range)).unwrap_or_else(|| panic!("the {what} is out of reach"))
    };
    let info_range = PhysRange::with_len(start_info, pvh::START_INFO_BYTES);
    let info = StartInfo::parse(bytes(info_range, "start info"));
    let info = info.unwrap_or_else(|error| panic!("not started by the PVH protocol: {error:?}"));
    let entries = pvh::memory_map(bytes(Some(info.memory_map), "memory map"));
    let map = MemoryMap::from_firmware(entries, WINDOW_BYTES);
    let map = map.unwrap_or_else(|error| panic!("the memory map cannot be used: {error:?}"));
    let line_range = PhysRange::with_len(info.command_line, pvh::COMMAND_LINE_BYTES);
    let line_bytes = line_range.filter(|_| info.command_line != 0).and_then(|range| firmware.bytes(range));
    let command_line = pvh::command_line(line_bytes.unwrap_or_default());
    let modules = firmware.bytes(info.modules).unwrap_or_default();
    let tables = Tables::locate(&firmware, info.rsdp);

    let mut early = EarlyMemory::new(map.clone());
    let mut reserve = |range: Option<PhysRange>, owner| {
        let reserved = range.map_or(Ok(()), |range| early.reserve(range, owner));
        reserved.unwrap_or_else(|error| panic!("cannot reserve {range:?} for {owner}: {error:?}"));
    };
    reserve(PhysRange::with_len(0, FRAME_BYTES), Owner::FrameZero);
    reserve(Some(image()), Owner::Image);
    for range in [info_range, Some(info.memory_map), Some(info.modules)] {
        reserve(range, Owner::Loader);
    }
    reserve(PhysRange::with_len(info.command_line, command_line.len() as u64 + 1), Owner::Loader);
    pvh::modules(modules).for_each(|module| reserve(Some(module), Owner::Module));
    // Most firmware keeps its tables outside usable memory.
    let in_usable = |range: &PhysRange| map.usable().any(|usable| usable.overlaps(*range));
    let table_ranges = tables.iter().flat_map(Tables::iter).map(|table| table.range).filter(in_usable);
    table_ranges.for_each(|range| reserve(Some(range), Owner::Acpi));
    physical::init(early);

    apic::check().unwrap_or_else(|error| panic!("the local APIC cannot be used: {error:?}"));
    let topology = Topology::discover(tables.as_ref().map_err(|&error| error), map.usable(), apic::id());
    machine::publish(Machine { map, topology, command_line, began })
}

/// Step 4: the window, the image with the rights its parts need, and stacks.
fn build_page_tables(machine: &Machine) -> Result<u64, MapError> {
    let mut mapper = Mapper::new(WindowTables)?;
    map_window(&mut mapper, &machine.map)?;
    let symbols = [
        ((&raw const text_start).addr(), Access::Code),
        ((&raw const rodata_start).addr(), Access::ReadOnly),
        ((&raw const data_start).addr(), Access::Data),
    ];
    let ends = symbols.iter().skip(1).map(|&(address, _)| address as u64).chain([UPPER + image().end()]);
    for (&(start, access), end) in symbols.iter().zip(ends) {
        let start = start as u64;
        mapper.map(start, start - UPPER, end - start, SMALL, access)?;
    }
    for number in 0..machine.topology.cpus().len() {
        for (which, &bytes) in STACK_BYTES.iter().enumerate() {
            let block = physical::alloc(bytes, SMALL, PhysRange::BELOW_4_GIB, Owner::Stacks);
            let start = block.map_err(|_| MapError::NoMemory)?.range().start();
            mapper.map(stack_top(number, which) - bytes, start, bytes, SMALL, Access::Data)?;
        }
    }
    Ok(mapper.root())
}

/// Everything below 4 GiB, past the caches where there is no memory but devices, and all memory above.
fn map_window(mapper: &mut Mapper<WindowTables>, map: &MemoryMap) -> Result<(), MapError> {
    let has_memory = |page: PhysRange| {
        map.regions().iter().any(|region| region.kind != RegionKind::Reserved && region.range.overlaps(page))
    };
    let low = (0..PhysRange::BELOW_4_GIB.end()).step_by(LARGE as usize);
    for page in low.filter_map(|start| PhysRange::with_len(start, LARGE)) {
        // The first MiB holds firmware in memory, whatever the map says.
        let access = if has_memory(page) || page.start() == 0 { Access::Data } else { Access::Device };
        mapper.map(WINDOW + page.start(), page.start(), LARGE, LARGE, access)?;
    }
    // Two regions may share a large page.
    let mut mapped = PhysRange::BELOW_4_GIB.end();
    for range in map.usable().map(|range| range.covering(LARGE)) {
        let start = range.start().max(mapped);
        if start >= range.end() {
            continue;
        }
        mapper.map(WINDOW + start, start, range.end() - start, LARGE, Access::Data)?;
        mapped = range.end();
    }
    Ok(())
}

/// Where the stack number `which` of CPU `number` begins.
fn stack_top(number: usize, which: usize) -> u64 {
    let below: u64 = STACK_BYTES[..=which].iter().map(|bytes| SMALL + bytes).sum();
    STACKS + STACK_STRIDE * number as u64 + below
}

/// Gives each CPU its area and descriptor tables.
fn prepare_cpus(machine: &Machine) {
    let mut all = CPU_TABLES.lock();
    for (number, (place, cpu)) in all.iter_mut().zip(machine.topology.cpus()).enumerate() {
        let bytes = size_of::<CpuTables>() as u64;
        let block = physical::alloc(bytes, SMALL, PhysRange::BELOW_4_GIB, Owner::PerCpu);
        let block = block.unwrap_or_else(|error| panic!("no memory for CPU {number}: {error:?}"));
        *place = Some(block.place(CpuTables::new(PerCpu::new(number as u32, cpu.apic, cpu.node as u32))));
    }
}

/// Switches to the page tables at `root` and to an empty stack, and goes on at `next`.
fn continue_at(root: u64, stack: u64, next: extern "C" fn() -> !) -> ! {
    // SAFETY: the new tables map the image where the old ones do, and the stack, which nobody uses yet.
    unsafe {
        asm!("mov cr3, {root}", "mov rsp, {stack}", "xor ebp, ebp", "call {next}", "ud2",
             root = in(reg) root, stack = in(reg) stack, next = in(reg) next, options(noreturn));
    }
}

/// Step 5, on the boot CPU.
extern "C" fn boot_main() -> ! {
    // That stack had no hole below it.
    assert!(boot_stack_bottom.iter().all(|word| word.load(Ordering::Relaxed) == 0), "the boot stack was too small");
    start_here(0);
    boot_heap::init();
    smp::init();
    start_others();
    cpu::enable_interrupts();
    machine::booted();
    pagemill_kernel_main();
    cpu::exit(cpu::Verdict::Passed)
}

/// Makes this CPU number `number`.
fn start_here(number: u32) {
    let tables = CPU_TABLES.lock()[number as usize].take().expect("each CPU starts once");
    idt::load(tables, core::array::from_fn(|index| stack_top(number as usize, index + 1)), true);
    apic::enable();
    percpu::report_online();
}

/// Starts the other CPUs, one after the other since they share the way in. One that does not come ends it: it might
/// come later and take what was meant for the next.
fn start_others() {
    let cpus = machine::get().topology.cpus();
    let others = || (1_u32..).zip(&cpus[1..]).take_while(|(_, cpu)| cpu.apic < APIC_LIMIT);
    if others().count() + 1 < cpus.len() {
        crate::println!("CPUs from number {} on have APICs that cannot be named", others().count() + 1);
    }
    if others().next().is_none() {
        return;
    }
    let Ok(block) = physical::alloc(FRAME_BYTES, FRAME_BYTES, TRAMPOLINE_RANGE, Owner::Trampoline) else {
        crate::println!("no frame below 1 MiB for the other CPUs to begin in, going on with one");
        return;
    };
    let frame = (block.range().start() / FRAME_BYTES) as u8;
    block.into_bytes()[..trampoline().len()].write_copy_of_slice(trampoline());

    others().for_each(|(_, cpu)| apic::send_init(cpu.apic));
    cpu::delay_us(10_000);
    for (number, cpu) in others() {
        AP_STACK.store(stack_top(number as usize, 0), Ordering::Relaxed);
        // Release: pairs with the Acquire in `ap_entry`.
        AP_NUMBER.store(number, Ordering::Release);
        if !wake(cpu.apic, frame, number) {
            crate::println!("CPU {number} with APIC {} did not start, going on without", cpu.apic);
            break;
        }
    }
}

/// Wakes a CPU and waits for it: up to a second, or as long as it takes once it has taken its number.
fn wake(apic: u32, frame: u8, number: u32) -> bool {
    let is_up = || percpu::online() > number;
    for patience_us in [200, 1_000_000] {
        apic::send_startup(apic, frame);
        for _ in 0..patience_us / 10 {
            if is_up() {
                return true;
            }
            cpu::delay_us(10);
        }
    }
    let came = AP_NUMBER.swap(0, Ordering::AcqRel) == 0;
    while came && !is_up() {
        core::hint::spin_loop();
    }
    came
}

/// The first lines of Rust on another CPU: on its own stack, with the kernel's page tables.
extern "C" fn ap_entry() -> ! {
    percpu::install_before_locks();
    // Acquire: pairs with the Release in `start_others`.
    match AP_NUMBER.swap(0, Ordering::AcqRel) {
        0 => cpu::stop(),
        number => start_here(number),
    }
    smp::idle()
}

fn trampoline() -> &'static [u8] {
    let (start, end) = (&raw const trampoline_start, &raw const trampoline_end);
    // SAFETY: the bytes between the symbols are constants of the image, placed there by `boot.s`.
    unsafe { slice::from_raw_parts(start, end.addr() - start.addr()) }
}
