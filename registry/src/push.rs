//! What is written to registries.

use std::io::{self, Read};

use drydock_model::digest::Digest;
use drydock_model::manifest::{Annotations, Descriptor, Index};
use drydock_model::media;
use drydock_model::reference::ImageRef;
use serde::Deserialize;
use ureq::http::{HeaderMap, Method, StatusCode};

use crate::MANIFEST_LIMIT;
use crate::auth::Access;
use crate::call::{Call, Content, location};
use crate::error::{Error, ErrorKind};
use crate::registry::{Registry, announced, parse, push, referrers_tag};
use crate::retry::with_retries;
use crate::url::with_parameter;

/// How a blob came into a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existing,
    /// From another repository of the registry: nothing was sent.
    Mounted,
    /// It was sent.
    Sent,
}

impl Registry {
    /// Puts a blob into a repository, unless it is there. `from` is another repository that may have it: from
    /// one of the same registry, it is mounted if the registry allows that. Otherwise what `open` gives is
    /// sent: again from its beginning, if the connection breaks off.
    pub fn put_blob<R: Read>(
        &self,
        repository: &ImageRef,
        descriptor: &Descriptor,
        from: Option<&ImageRef>,
        open: &mut dyn FnMut() -> io::Result<R>,
    ) -> Result<Pushed, Error> {
        let digest = descriptor.digest;
        let mut put = || {
            let access = push(repository);
            if self.find_blob(repository, digest, &access)? {
                return Ok(Pushed::Existing);
            }
            let from = from
                .filter(|from| from.registry() == repository.registry() && from.name() != repository.name());
            // Who refuses while being sent to may close the connection: why, is told to who asks first.
            let mut asks_first = false;
            with_retries(&self.caller.retry, || {
                let sent = self.send_blob(repository, descriptor, from, &access, asks_first, open);
                asks_first |= matches!(sent, Err(ErrorKind::Broken { .. }));
                sent
            })
        };
        put().map_err(|kind| Error::new(repository.with_digest(digest).to_string(), kind))
    }

    fn send_blob<R: Read>(
        &self,
        repository: &ImageRef,
        descriptor: &Descriptor,
        from: Option<&ImageRef>,
        access: &Access,
        asks_first: bool,
        open: &mut dyn FnMut() -> io::Result<R>,
    ) -> Result<Pushed, ErrorKind> {
        let digest = descriptor.digest;
        let uploads = self.url(repository, "blobs/uploads/")?;
        let begin = |from: Option<&ImageRef>| {
            let mut access = access.clone();
            let mut url = uploads.clone();
            if let Some(from) = from {
                access.scopes.push(format!("repository:{}:pull", from.repository()));
                url = with_parameter(&url, &format!("mount={digest}&from={}", from.repository()))?;
            }
            self.caller.attempt(&mut Call::new(Method::POST, url, Some(&access), "repository"))
        };
        let response = match begin(from) {
            // Who may not read the other repository sends the blob.
            Err(ErrorKind::Unauthorized { .. } | ErrorKind::NotFound { .. }) if from.is_some() => {
                begin(None)?
            }
            other => other?,
        };
        if from.is_some() && response.status() == StatusCode::CREATED {
            return Ok(Pushed::Mounted);
        }
        let url = with_parameter(&location(&uploads, response.headers())?, &format!("digest={digest}"))?;
        let mut open = || -> io::Result<Box<dyn Read + '_>> { Ok(Box::new(open()?)) };
        let content = Content {
            media_type: "application/octet-stream",
            size: descriptor.size,
            open: &mut open,
            asks_first,
        };
        let mut call = Call { content: Some(content), ..Call::new(Method::PUT, url, Some(access), "upload") };
        let response = self.caller.attempt(&mut call)?;
        check(response.headers(), digest)?;
        Ok(Pushed::Sent)
    }

    /// Puts a manifest or an index under the reference's tag or digest. What it needs must be there. Where
    /// the registry has no referrers interface, a manifest with a `subject` is also added to the list under
    /// the tag that stands for the subject; of two clients that do so at once, one may be lost, as the
    /// specification has it.
    pub fn put_manifest(
        &self,
        reference: &ImageRef,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, Error> {
        self.send_manifest(reference, media_type, bytes)
            .map_err(|kind| Error::new(reference.to_string(), kind))
    }

    fn send_manifest(
        &self,
        reference: &ImageRef,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, ErrorKind> {
        let digest = Digest::of(bytes);
        if let Some(expected) = reference.digest().filter(|&expected| expected != digest) {
            return Err(ErrorKind::DigestMismatch { expected, found: digest });
        }
        let headers = self.upload_manifest(reference, media_type, bytes)?;
        check(&headers, digest)?;
        let manifest: WithSubject = parse(bytes, "the manifest that was sent")?;
        let subject = manifest.subject.as_ref().map(|subject| subject.digest);
        if let Some(subject) = subject.filter(|_| !headers.contains_key("oci-subject")) {
            let descriptor = manifest.describe(Descriptor::new(media_type, digest, bytes.len() as u64));
            self.add_referrer(reference, subject, descriptor)?;
        }
        Ok(digest)
    }

    fn upload_manifest(
        &self,
        reference: &ImageRef,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<HeaderMap, ErrorKind> {
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(ErrorKind::TooLarge { limit: MANIFEST_LIMIT });
        }
        let version = match reference.tag() {
            Some(tag) => tag.to_owned(),
            None => Digest::of(bytes).to_string(),
        };
        let access = push(reference);
        let url = self.url(reference, &format!("manifests/{version}"))?;
        let mut open = || -> io::Result<Box<dyn Read + '_>> { Ok(Box::new(bytes)) };
        let content = Content { media_type, size: bytes.len() as u64, open: &mut open, asks_first: false };
        let mut call =
            Call { content: Some(content), ..Call::new(Method::PUT, url, Some(&access), "repository") };
        Ok(self.caller.call(&mut call)?.into_parts().0.headers)
    }

    /// Specification: distribution-spec § Pushing Manifests with Subject.
    fn add_referrer(
        &self,
        repository: &ImageRef,
        subject: Digest,
        descriptor: Descriptor,
    ) -> Result<(), ErrorKind> {
        let mut index = self.tagged_referrers(repository, subject)?.unwrap_or_else(Index::empty);
        if index.manifests.descriptors.iter().any(|other| other.digest == descriptor.digest) {
            return Ok(());
        }
        index.manifests.descriptors.push(descriptor);
        let bytes = serde_json::to_vec(&index).expect("an index is JSON");
        self.upload_manifest(&referrers_tag(repository, subject), media::INDEX, &bytes).map(drop)
    }
}

/// What a manifest says of itself to those who look for what refers to its subject.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WithSubject {
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    annotations: Option<Annotations>,
}

impl WithSubject {
    fn describe(self, mut descriptor: Descriptor) -> Descriptor {
        let of_config = self.config.map(|config| config.media_type);
        if let Some(artifact_type) = self.artifact_type.filter(|text| !text.is_empty()).or(of_config) {
            descriptor.rest.insert("artifactType".to_owned(), artifact_type.into());
        }
        descriptor.annotations = self.annotations.unwrap_or_default();
        descriptor
    }
}

/// Whether the registry has what was sent.
fn check(headers: &HeaderMap, expected: Digest) -> Result<(), ErrorKind> {
    match announced(headers) {
        Some(found) if found != expected => Err(ErrorKind::DigestMismatch { expected, found }),
        _ => Ok(()),
    }
}
