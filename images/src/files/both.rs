//! Two images side by side.

use std::cmp::Ordering;

use super::{Files, Node, NodeKind, ROOT, Slot, push};

/// A file with its number.
pub(crate) type Numbered<'a> = (u32, &'a Node);

/// What is shown a path, and what is there in each image.
pub(crate) type Visit<'a, 'v> = dyn FnMut(&[u8], Option<Numbered<'a>>, Option<Numbered<'a>>) + 'v;

/// Shows every path of one image or the other but the root, folders before what is in them.
pub(crate) fn walk_both<'a>(a: &'a Files, b: &'a Files, visit: &mut Visit<'a, '_>) {
    walk_from([(a, Some(ROOT)), (b, Some(ROOT))], &mut Vec::new(), visit);
}

fn walk_from<'a>(dirs: [(&'a Files, Option<u32>); 2], path: &mut Vec<u8>, visit: &mut Visit<'a, '_>) {
    let names = |(files, number): (&'a Files, Option<u32>)| {
        let kind = number.map(|number| &files.nodes[number as usize].kind);
        let names = if let Some(NodeKind::Dir(names)) = kind { Some(&**names) } else { None };
        names.into_iter().flatten().peekable()
    };
    let [mut left, mut right] = dirs.map(names);
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((left, _)), Some((right, _))) => left.cmp(right),
        };
        let a = left.next_if(|_| order.is_le());
        let b = right.next_if(|_| order.is_ge());
        let length = path.len();
        a.or(b).into_iter().for_each(|(name, _)| push(path, name));
        let number = |side: Option<(&Box<[u8]>, &Slot)>| side.map(|(_, slot)| slot.node);
        let [x, y] = [(dirs[0].0, number(a)), (dirs[1].0, number(b))];
        let node = |(files, number): (&'a Files, Option<u32>)| {
            number.map(|number| (number, &files.nodes[number as usize]))
        };
        visit(path, node(x), node(y));
        walk_from([x, y], path, visit);
        path.truncate(length);
    }
}
