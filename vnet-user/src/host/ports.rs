//! Sets of L4 ports, as the kernel writes them: `80,8000-8010`.

use std::{fmt, str::FromStr};

/// Some of the 65536 ports.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet {
    words: Box<[u64; 1024]>,
}

impl Default for PortSet {
    fn default() -> Self {
        Self { words: Box::new([0; 1024]) }
    }
}

impl PortSet {
    pub fn insert_range(&mut self, first: u16, last: u16) {
        for port in first..=last {
            self.words[usize::from(port) / 64] |= 1 << (port % 64);
        }
    }

    pub fn contains(&self, port: u16) -> bool {
        self.words[usize::from(port) / 64] & (1 << (port % 64)) != 0
    }

    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a | b)
    }

    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & !b)
    }

    fn combine(&self, other: &Self, operation: impl Fn(u64, u64) -> u64) -> Self {
        let mut result = Self::default();
        for (word, (a, b)) in result.words.iter_mut().zip(self.words.iter().zip(other.words.iter())) {
            *word = operation(*a, *b);
        }
        result
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut port = 0u32;
        while port <= u32::from(u16::MAX) {
            if !self.contains(port as u16) {
                port += 1;
                continue;
            }
            let first = port;
            while port < u32::from(u16::MAX) && self.contains((port + 1) as u16) {
                port += 1;
            }
            write!(f, "{separator}{first}")?;
            if port > first {
                write!(f, "-{port}")?;
            }
            separator = ",";
            port += 1;
        }
        Ok(())
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl FromStr for PortSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut ports = Self::default();
        for part in text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.parse(), last.parse()) {
                (Ok(first), Ok(last)) => ports.insert_range(first, last),
                _ => return Err(format!("holds '{part}', which is no port range")),
            }
        }
        Ok(ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_read_back_as_the_kernel_writes_them() {
        for text in ["", "80", "80-81", "1,3,5-9,65535", "49152-65535", "0-65535"] {
            assert_eq!(text.parse::<PortSet>().unwrap().to_string(), text);
        }
        assert_eq!("80,81,82\n".parse::<PortSet>().unwrap().to_string(), "80-82");
        assert!("80-x".parse::<PortSet>().is_err());
    }

    #[test]
    fn what_others_reserved_stays_when_ours_goes() {
        let others: PortSet = "50000-50010,60".parse().unwrap();
        let wanted: PortSet = "49152-65535".parse().unwrap();
        let ours = wanted.difference(&others);
        assert_eq!(others.union(&wanted).difference(&ours), others);
        assert!(!ours.contains(50000) && ours.contains(50011));
    }
}
