use super::*;

fn memory_of(bytes: u64) -> GlobalMemory {
    let mut memory = GlobalMemory::new();
    memory.add_pool(bytes);
    memory
}

#[test]
fn copies_of_every_alignment() {
    let mut memory = memory_of(1 << 20);
    let base = memory.allocate(0, 100, 1).unwrap();
    assert_eq!(base % 256, 0);
    let data: Vec<u8> = (0..40).collect();
    for offset in 0..20 {
        memory.write(base + offset, &data).unwrap();
        let mut back = vec![0; 40];
        memory.read(base + offset, &mut back).unwrap();
        assert_eq!(back, data);
    }
    assert!(memory.write(base + 61, &data).is_err());
    assert!(memory.write(base - 1, &data).is_err());
    memory.fill(base + 2, &[1, 2], 10).unwrap();
    let mut back = vec![0; 4];
    memory.read(base + 4, &mut back).unwrap();
    assert_eq!(back, [1, 2, 1, 2]);
}

#[test]
fn freed_addresses_are_remembered_and_memory_is_bounded() {
    let mut memory = memory_of(1024);
    let first = memory.allocate(0, 512, 1).unwrap();
    assert_eq!(
        memory.allocate(0, 600, 1).unwrap_err().kind(),
        ErrorKind::OutOfMemory
    );
    memory.free(first).unwrap();
    assert!(memory.free(first).is_err());
    let second = memory.allocate(0, 512, 1).unwrap();
    assert_ne!(first, second);
    assert_eq!(memory.was_freed(first + 5), Some((first, 512)));
    assert!(memory.find(first, &mut 0).is_none());
}

#[test]
fn copies_carry_what_was_written() {
    let mut memory = memory_of(1 << 20);
    let (a, b) = (
        memory.allocate(0, 64, 1).unwrap(),
        memory.allocate(0, 64, 1).unwrap(),
    );
    memory.write(a, &[1, 2]).unwrap();
    memory.copy(b, a, 3).unwrap();
    let target = memory.find(b, &mut 0).unwrap();
    assert!(target.is_defined(0, 2) && !target.is_defined(2, 1));
}

#[test]
fn parts_of_ranges_are_defined() {
    let mut memory = memory_of(1 << 20);
    let base = memory.allocate(0, 1024, 1).unwrap();
    let allocation = memory.find(base, &mut 0).unwrap();
    // Every second word from the third on, over several words of 64 bits.
    let every_second = 0x0f0f_0f0f_0f0f_0f0f;
    allocation.define_among(8, 31 * 8 + 4, every_second);
    for word in 0..128 {
        let is_in = word % 2 == 0 && (2..66).contains(&word);
        assert_eq!(allocation.is_defined(4 * word, 4), is_in, "word {word}");
    }
    assert!(allocation.is_defined_among(8, 31 * 8 + 4, every_second));
    assert!(!allocation.is_defined_among(8, 31 * 8 + 8, !every_second));
    assert!(!allocation.is_defined_range(8, 8));
    // Whole words of 64 bytes between two parts.
    for (start, bytes) in [(300, 500), (832, 64), (900, 60)] {
        let memory_before: Vec<bool> = (0..1024).map(|at| allocation.is_defined(at, 1)).collect();
        allocation.define(start, bytes);
        for (at, before) in (0..).zip(memory_before) {
            let is_in = before || (start..start + bytes).contains(&at);
            assert_eq!(allocation.is_defined(at, 1), is_in, "byte {at}");
        }
        assert!(allocation.is_defined_range(start, bytes));
    }
}
