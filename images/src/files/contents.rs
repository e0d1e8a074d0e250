//! Which entries of layers the files of an image are copied from.

use super::{Files, NodeKind, ROOT, push};

/// The files of an image that have contents, by the entries of layers that hold them.
#[derive(Debug)]
pub(crate) struct Contents<'a> {
    /// Paths of folders.
    folders: Vec<Vec<u8>>,
    /// Of each layer: all names of its files, by entry, then in the order of their paths.
    layers: Vec<Vec<Named<'a>>>,
}

/// A name: `(entry, number of the folder, name in it)`.
type Named<'a> = (u32, usize, &'a [u8]);

impl<'a> Contents<'a> {
    /// Those of an image with so many layers.
    pub(crate) fn of(files: &'a Files, layers: usize) -> Self {
        let mut contents = Self { folders: Vec::new(), layers: vec![Vec::new(); layers] };
        contents.gather(files, ROOT, &mut Vec::new());
        contents.layers.iter_mut().for_each(|names| names.sort_by_key(|(entry, ..)| *entry));
        contents
    }

    fn gather(&mut self, files: &'a Files, dir: u32, path: &mut Vec<u8>) {
        let NodeKind::Dir(names) = &files.nodes[dir as usize].kind else { return };
        let folder = self.folders.len();
        self.folders.push(path.clone());
        for (name, slot) in names.iter() {
            let node = &files.nodes[slot.node as usize];
            if let (NodeKind::File { .. }, Some(entry)) = (&node.kind, node.entry) {
                self.layers[node.layer as usize].push((entry, folder, name));
            }
            let length = path.len();
            push(path, name);
            self.gather(files, slot.node, path);
            path.truncate(length);
        }
    }

    /// Whether nothing of a layer stays.
    pub(crate) fn lacks(&self, layer: usize) -> bool {
        self.layers[layer].is_empty()
    }

    /// The paths of the file that an entry of a layer holds.
    pub(crate) fn paths(&self, layer: usize, entry: u64) -> impl Iterator<Item = Vec<u8>> {
        let names = &self.layers[layer];
        let from = names.partition_point(|(other, ..)| u64::from(*other) < entry);
        let same = names[from..].iter().take_while(move |(other, ..)| u64::from(*other) == entry);
        same.map(|(_, folder, name)| {
            let mut path = self.folders[*folder].clone();
            push(&mut path, name);
            path
        })
    }
}
