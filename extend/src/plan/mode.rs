//! Permissions as `--chmod` has them: `0755`, `u=rwX,go-w`.

/// Permissions, or what changes in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permissions {
    /// These.
    Exactly(u32),
    /// Those that are there, changed.
    Changed(Vec<Change>),
}

/// A change of permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// All bits of those whose permissions change.
    who: u32,
    operation: char,
    /// As for everybody.
    bits: u32,
    /// Whose rights they get, as how far these are shifted in a mode: `g=u`.
    like: Vec<u32>,
    /// `X`: the right to run, where somebody has it, and of folders.
    runs_if_any: bool,
}

impl Permissions {
    /// Fails with what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` are no permissions; write them like `0755` or `u=rwX,go=rX`");
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Self::Exactly).ok_or_else(wrong);
        }
        let changes = text.split(',').map(Change::parse).collect::<Option<Vec<_>>>();
        changes.map(Self::Changed).ok_or_else(wrong)
    }

    /// What comes of permissions of a file or a folder.
    pub fn of(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Exactly(mode) => *mode,
            Self::Changed(changes) => changes.iter().fold(mode, |mode, change| change.apply(mode, is_dir)),
        }
    }
}

impl Change {
    fn parse(text: &str) -> Option<Self> {
        let at = text.find(['+', '-', '='])?;
        let (names, rest) = text.split_at(at);
        let mut who = 0;
        for name in names.chars() {
            who |= match name {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return None,
            };
        }
        let mut rights = rest.chars();
        let operation = rights.next()?;
        let mut change = Self {
            who: if who == 0 { 0o7777 } else { who },
            operation,
            bits: 0,
            like: Vec::new(),
            runs_if_any: false,
        };
        for right in rights {
            change.bits |= match right {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                's' => 0o6000,
                't' => 0o1000,
                'X' => {
                    change.runs_if_any = true;
                    0
                }
                'u' | 'g' | 'o' => {
                    change.like.push(match right {
                        'u' => 6,
                        'g' => 3,
                        _ => 0,
                    });
                    0
                }
                _ => return None,
            };
        }
        Some(change)
    }

    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let runs = if self.runs_if_any && (is_dir || mode & 0o111 != 0) { 0o111 } else { 0 };
        let sticky = self.bits & 0o1000;
        let like = self.like.iter().fold(0, |bits, shift| bits | ((mode >> shift & 7) * 0o111));
        let bits = (self.bits | runs | like) & self.who | sticky;
        match self.operation {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !self.who | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions() {
        for (text, mode, is_dir, want) in [
            ("755", 0o600, false, 0o755),
            ("04755", 0, false, 0o4755),
            ("0", 0o777, true, 0),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("go-w", 0o666, false, 0o644),
            ("a=r", 0o4777, false, 0o444),
            ("u+s", 0o755, false, 0o4755),
            ("+t", 0o777, true, 0o1777),
            ("g=", 0o777, false, 0o707),
            ("g=u", 0o640, false, 0o660),
            ("o=g,g-w", 0o765, false, 0o746),
            ("o+u", 0o4710, false, 0o4717),
        ] {
            assert_eq!(Permissions::parse(text).unwrap().of(mode, is_dir), want, "{text} {mode:o}");
        }
        for text in ["", "8", "0o755", "10000", "rwx", "u", "u=rwz", "z=r", "755,u=r", "u=r,"] {
            assert!(Permissions::parse(text).is_err(), "{text}");
        }
    }
}
