//! Changes of an index, as values: nothing is dropped that is not replaced.
//!
//! A layout's folder stands for one name. What its index calls so is *ours*. If it calls nothing so, the only image is,
//! whatever its name, since readers take it; or images without names are, if there is one for each platform. A name may stand for an image
//! or, for several platforms, for one nested index. Everything else (artifacts, other names) stays as it is.

use drydock_model::digest::Digest;
use drydock_model::manifest::{Descriptor, Members, REF_NAME};
use drydock_model::platform::Platform;

use super::error::LayoutError;
use super::tree::{Content, Entry, Nested};

/// A change of what a layout holds.
#[derive(Debug, Clone)]
pub enum Change {
    /// An image takes the place of the one for the same platform; images for other platforms stay.
    Image {
        /// Its manifest.
        image: Descriptor,
        /// What it runs on.
        platform: Platform,
        /// The manifest of an image whose place it takes too, whatever that one's platform.
        replaces: Option<Digest>,
    },
    /// The layout's name stands for this alone: an image or an index, with the digest that it has.
    Name(Descriptor),
    /// This comes beside what there is: an artifact, or something that has a name of its own.
    Add(Descriptor),
    /// What has this digest goes, if `index.json` itself names it.
    Remove(Digest),
    /// What the layout's name stands for goes.
    Unname,
}

impl Change {
    /// What it brings into the layout.
    pub(super) fn brings(&self) -> Option<&Descriptor> {
        match self {
            Self::Image { image: descriptor, .. } | Self::Name(descriptor) | Self::Add(descriptor) => {
                Some(descriptor)
            }
            Self::Remove(_) | Self::Unname => None,
        }
    }
}

/// The image that one for this platform would replace.
pub(super) fn replaced<'a>(
    entries: &'a [Entry],
    ref_name: &str,
    platform: &Platform,
) -> Option<&'a Descriptor> {
    let mut ours = named(entries, ref_name);
    ours.sort_by_key(|entry| entry.ref_name() != Some(ref_name));
    let images = ours.into_iter().flat_map(Entry::images);
    images.into_iter().find(|(_, other)| other.is_same(platform)).map(|(image, _)| image)
}

/// What a name stands for.
pub(super) fn named<'a>(entries: &'a [Entry], ref_name: &str) -> Vec<&'a Entry> {
    entries.iter().filter(|entry| is_ours(entry, entries, ref_name)).collect()
}

fn is_ours(entry: &Entry, all: &[Entry], ref_name: &str) -> bool {
    if entry.images().is_empty() {
        return false;
    }
    if all.iter().any(|other| other.ref_name() == Some(ref_name)) {
        return entry.ref_name() == Some(ref_name);
    }
    let with_images = || all.iter().filter(|other| !other.images().is_empty());
    if with_images().all(|other| std::ptr::eq(other, entry)) {
        return true;
    }
    // Without names, images are one name's if they are for different platforms.
    let platforms: Vec<&Platform> = with_images()
        .filter(|other| other.ref_name().is_none())
        .flat_map(|other| other.images().into_iter().map(|(_, platform)| platform))
        .collect();
    let is_once = |platform: &Platform| platforms.iter().filter(|other| other.is_same(platform)).count() == 1;
    entry.ref_name().is_none() && platforms.iter().all(|platform| is_once(platform))
}

/// The entries after a change. `write_index` makes a nested index of these members.
pub(super) fn apply(
    entries: &[Entry],
    ref_name: &str,
    change: &Change,
    write_index: &mut dyn FnMut(Members) -> Result<Descriptor, LayoutError>,
) -> Result<Vec<Entry>, LayoutError> {
    let (ours, others): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|entry| is_ours(entry, entries, ref_name));
    let others = || others.iter().copied().cloned();
    // Of what is damaged nobody knows what it was: its name or its digest tells whether the new is in place of it.
    let new = change.brings().map(|descriptor| descriptor.digest);
    let is_lost = |other: &Entry| {
        matches!(other.content, Content::Absent(_))
            && (other.ref_name() == Some(ref_name) || Some(other.descriptor.digest) == new)
    };
    let with_name = |mut entry: Entry| {
        entry.descriptor.annotations.insert(REF_NAME.to_owned(), ref_name.to_owned());
        entry
    };
    Ok(match change {
        Change::Image { image, platform, replaces } => {
            let mut nested = Nested::default();
            for entry in ours {
                add_members(entry, &mut nested);
            }
            let members = &mut nested.entries;
            members.retain(|member| match &member.content {
                Content::Image(other) => {
                    !other.is_same(platform) && *replaces != Some(member.descriptor.digest)
                }
                _ => true,
            });
            let descriptor = Descriptor { platform: Some(platform.clone()), ..image.clone() };
            members.push(Entry { descriptor, content: Content::Image(platform.clone()) });
            let one = if members.len() == 1 && nested.foreign.is_empty() {
                members.remove(0)
            } else {
                // Tools that copy all platforms of a name look for one index of that name.
                let descriptors = members.iter().map(|member| member.descriptor.clone()).collect();
                let members = Members { descriptors, foreign: nested.foreign.clone() };
                Entry { descriptor: write_index(members)?, content: Content::Index(nested) }
            };
            std::iter::once(with_name(one)).chain(others().filter(|other| !is_lost(other))).collect()
        }
        Change::Name(descriptor) => {
            let entry = Entry { descriptor: descriptor.clone(), content: Content::Artifact };
            std::iter::once(with_name(entry)).chain(others().filter(|other| !is_lost(other))).collect()
        }
        Change::Add(descriptor) => {
            let same = |entry: &&Entry| entry.descriptor == *descriptor;
            let added = Entry { descriptor: descriptor.clone(), content: Content::Artifact };
            let before = entries.iter().filter(|entry| !same(entry)).cloned();
            before.chain(std::iter::once(added)).collect()
        }
        Change::Remove(digest) => {
            entries.iter().filter(|entry| entry.descriptor.digest != *digest).cloned().collect()
        }
        Change::Unname => others().collect(),
    })
}

/// Adds what a name stands for: the image, or what its index holds. Names stay behind, platforms are written down.
fn add_members(entry: &Entry, to: &mut Nested) {
    if let Content::Index(nested) = &entry.content {
        to.foreign.extend(nested.foreign.iter().cloned());
        for entry in &nested.entries {
            add_members(entry, to);
        }
    } else if to.entries.iter().all(|member| member.descriptor.digest != entry.descriptor.digest) {
        let mut member = entry.clone();
        member.descriptor.annotations.remove(REF_NAME);
        if let Content::Image(platform) = &entry.content {
            member.descriptor.platform = Some(platform.clone());
        }
        to.entries.push(member);
    }
}

#[cfg(test)]
mod tests {
    use drydock_model::media;

    use super::*;

    fn descriptor(text: &str, name: Option<&str>) -> Descriptor {
        let mut descriptor = Descriptor::new(media::MANIFEST, Digest::of(text.as_bytes()), 1);
        descriptor.annotations.extend(name.map(|name| (REF_NAME.to_owned(), name.to_owned())));
        descriptor
    }

    /// `arch@name:text` is an image, `!text` an artifact, `[a b]@name` an index.
    fn entry(text: &str) -> Entry {
        if let Some(inner) = text.strip_prefix('[') {
            let (inner, name) = inner.split_once(']').unwrap();
            let entries = inner.split(' ').map(entry).collect();
            let content = Content::Index(Nested { entries, ..Nested::default() });
            return Entry { descriptor: descriptor(text, name.strip_prefix('@')), content };
        }
        if text.starts_with('!') {
            return Entry { descriptor: descriptor(text, None), content: Content::Artifact };
        }
        let (platform, name) = text.split_once('@').unwrap();
        let name = Some(name).filter(|name| !name.is_empty());
        Entry { descriptor: descriptor(text, name), content: Content::Image(Platform::linux(platform)) }
    }

    fn show(entries: &[Entry], known: &[&str]) -> Vec<String> {
        let one = |entry: &Entry| {
            if let Content::Index(nested) = &entry.content {
                return format!("[{}]", show(&nested.entries, known).join(" "));
            }
            let known = known.iter().find(|text| entry.descriptor.digest == Digest::of(text.as_bytes()));
            known.map_or("new", |text| text).to_owned()
        };
        entries.iter().map(one).collect()
    }

    #[test]
    fn nothing_is_dropped_that_is_not_replaced() {
        for (before, after) in [
            (&[][..], &["new"][..]),
            (&["amd64@"], &["new"]),
            (&["amd64@latest", "!sbom"], &["new", "!sbom"]),
            (&["amd64@v1"], &["new"]),
            (&["amd64@v1", "amd64@v2"], &["new", "amd64@v1", "amd64@v2"]),
            (&["amd64@latest", "amd64@v2"], &["new", "amd64@v2"]),
            (&["arm64@latest"], &["[arm64@latest new]"]),
            (&["amd64@", "arm64@"], &["[arm64@ new]"]),
            (&["[!proof]@sha256-1", "arm64@latest"], &["[arm64@latest new]", "[!proof]"]),
            (&["[amd64@ arm64@ !proof]@latest"], &["[arm64@ !proof new]"]),
            (&["amd64@", "amd64@"], &["new", "amd64@", "amd64@"]),
            (&["amd64@", "arm64@latest"], &["[arm64@latest new]", "amd64@"]),
            (&["[amd64@ arm64@]@other", "arm64@latest"], &["[arm64@latest new]", "[amd64@ arm64@]"]),
        ] {
            let entries: Vec<Entry> = before.iter().map(|text| entry(text)).collect();
            let known: Vec<&str> = before.iter().flat_map(|text| text.split(['[', ']', ' '])).collect();
            let platform = Platform::linux("amd64");
            let change = Change::Image { image: descriptor("new", None), platform, replaces: None };
            let mut write = |_: Members| Ok(descriptor("index", None));
            let got = apply(&entries, "latest", &change, &mut write).unwrap();
            assert_eq!(show(&got, &known), after, "{before:?}");
            assert_eq!(got[0].ref_name(), Some("latest"));
            for change in [Change::Add(descriptor("new", None)), Change::Remove(Digest::of(b"new"))] {
                let got = apply(&entries, "latest", &change, &mut write).unwrap();
                let news = usize::from(matches!(change, Change::Add(_)));
                assert_eq!(got.len(), entries.len() + news, "{before:?}");
            }
            let got = apply(&entries, "latest", &Change::Unname, &mut write).unwrap();
            assert_eq!(show(&got, &known), after[1..], "{before:?}");
        }
    }
}
