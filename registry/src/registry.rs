//! What is read from registries.

use drydock_model::digest::Digest;
use drydock_model::json;
use drydock_model::manifest::{Descriptor, Index};
use drydock_model::reference::ImageRef;
use serde::Deserialize;
use ureq::Body;
use ureq::http::header::{CONTENT_TYPE, LINK};
use ureq::http::{HeaderMap, Method, Response, Uri};

use crate::MANIFEST_LIMIT;
use crate::auth::Access;
use crate::call::{Call, Caller, bytes, malformed};
use crate::error::{Error, ErrorKind};
use crate::options::Options;
use crate::url::{Origin, join};

/// Every kind of manifest that is understood; from a registry that has others, they can be had, too.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/json;q=0.5";

/// How many tags are asked for at once.
const TAGS_PER_PAGE: u32 = 1000;
/// How many pages of tags or referrers are read.
const PAGE_LIMIT: u32 = 1000;

/// Registries, as these options say.
///
/// ```no_run
/// use std::io::Read as _;
///
/// use drydock_model::{digest::Digest, manifest::Manifest, reference::ImageRef};
/// use drydock_registry::{Options, Registry};
///
/// let registry = Registry::new(&Options::default())?;
/// let image: ImageRef = "docker.io/library/node:22".parse()?;
/// let (_, bytes) = registry.manifest(&image)?; // or an index: look at the descriptor's media type
/// let manifest: Manifest = serde_json::from_slice(&bytes)?;
/// let mut config = Vec::new();
/// registry.blob(&image, &manifest.config, 0)?.read_to_end(&mut config)?;
/// assert_eq!(Digest::of(&config), manifest.config.digest);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Cheap to share: connections and tokens are kept for all who use it, from any number of threads.
#[derive(Debug)]
pub struct Registry {
    pub(crate) caller: Caller,
}

impl Registry {
    /// Connects to nobody yet.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let caller = Caller::new(options).map_err(|kind| Error::new("settings of registries", kind))?;
        Ok(Self { caller })
    }

    /// The manifest or index that a reference names, and what describes it. At most [`MANIFEST_LIMIT`] bytes,
    /// whose digest is the one that the reference names, if it names one, and the one that the registry
    /// announces, if it does.
    pub fn manifest(&self, reference: &ImageRef) -> Result<(Descriptor, Vec<u8>), Error> {
        self.find_manifest(reference).map_err(|kind| Error::new(reference.to_string(), kind))
    }

    pub(crate) fn find_manifest(&self, reference: &ImageRef) -> Result<(Descriptor, Vec<u8>), ErrorKind> {
        let access = pull(reference);
        let version = match reference.digest() {
            Some(digest) => digest.to_string(),
            None => reference.tag().unwrap_or_default().to_owned(),
        };
        let url = self.url(reference, &format!("manifests/{version}"))?;
        let mut call =
            Call { accept: Some(MANIFESTS), ..Call::new(Method::GET, url, Some(&access), "manifest") };
        crate::retry::with_retries(&self.caller.retry, || {
            let response = self.caller.attempt(&mut call)?;
            let (headers, body) = parts(response);
            let bytes = bytes(body, MANIFEST_LIMIT)?;
            let found = Digest::of(&bytes);
            for expected in reference.digest().into_iter().chain(announced(&headers)) {
                if expected != found {
                    return Err(ErrorKind::DigestMismatch { expected, found });
                }
            }
            let media_type = media_type(&headers, &bytes)?;
            Ok((Descriptor::new(&media_type, found, bytes.len() as u64), bytes))
        })
    }

    /// Whether the repository has a blob.
    pub fn has_blob(&self, repository: &ImageRef, digest: Digest) -> Result<bool, Error> {
        self.find_blob(repository, digest, &pull(repository))
            .map_err(|kind| Error::new(repository.with_digest(digest).to_string(), kind))
    }

    pub(crate) fn find_blob(
        &self,
        repository: &ImageRef,
        digest: Digest,
        access: &Access,
    ) -> Result<bool, ErrorKind> {
        let url = self.url(repository, &format!("blobs/{digest}"))?;
        match self.caller.call(&mut Call::new(Method::HEAD, url, Some(access), "blob")) {
            Ok(_) => Ok(true),
            Err(ErrorKind::NotFound { .. }) => Ok(false),
            Err(kind) => Err(kind),
        }
    }

    /// What refers to a manifest as its subject: by the referrers interface, else by the tag that stands for
    /// it. At most `limit`.
    pub fn referrers(
        &self,
        repository: &ImageRef,
        subject: Digest,
        limit: usize,
    ) -> Result<Vec<Descriptor>, Error> {
        let target = repository.with_digest(subject);
        let list = || {
            let mut found = Vec::new();
            let url = self.url(repository, &format!("referrers/{subject}"))?;
            let pages = self.pages(repository, url, "referrers", |bytes| {
                let index: Index = parse(bytes, "the list of referrers")?;
                found.extend(index.manifests.descriptors);
                found.truncate(limit);
                Ok(found.len() < limit)
            });
            match pages {
                Ok(()) => Ok(found),
                Err(
                    ErrorKind::NotFound { .. }
                    | ErrorKind::Status { status: 400 | 405 | 501, .. }
                    // What answers with something else than a list has no such interface either.
                    | ErrorKind::Malformed { .. },
                ) => {
                    let index = self.tagged_referrers(repository, subject)?;
                    Ok(index.map_or(Vec::new(), |index| {
                        index.manifests.descriptors.into_iter().take(limit).collect()
                    }))
                }
                Err(kind) => Err(kind),
            }
        };
        list().map_err(|kind| Error::new(target.to_string(), kind))
    }

    /// The index under the tag that stands for a subject, where the registry has no referrers interface.
    pub(crate) fn tagged_referrers(
        &self,
        repository: &ImageRef,
        subject: Digest,
    ) -> Result<Option<Index>, ErrorKind> {
        match self.find_manifest(&referrers_tag(repository, subject)) {
            Ok((_, bytes)) => parse(&bytes, "the list of referrers").map(Some),
            Err(ErrorKind::NotFound { .. }) => Ok(None),
            Err(kind) => Err(kind),
        }
    }

    /// The repository's tags, as the registry orders them, at most `limit`.
    pub fn tags(&self, repository: &ImageRef, limit: usize) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut found = Vec::new();
        let list = |found: &mut Vec<String>| {
            let url = self.url(repository, &format!("tags/list?n={TAGS_PER_PAGE}"))?;
            self.pages(repository, url, "repository", |bytes| {
                let page: Page = parse(bytes, "the list of tags")?;
                found.extend(page.tags.into_iter().flatten());
                found.truncate(limit);
                Ok(found.len() < limit)
            })
        };
        list(&mut found).map_err(|kind| Error::new(repository.name(), kind))?;
        Ok(found)
    }

    /// Whether the registry is one, and takes the credentials that there are for it.
    pub fn check(&self, registry: &str) -> Result<(), Error> {
        let access = Access { registry: registry.to_owned(), repository: String::new(), scopes: Vec::new() };
        let check = || {
            let origin = self.caller.transport.origin(registry)?;
            let url = format!("{origin}/v2/").parse().map_err(|_| malformed("a registry that is no host"))?;
            self.caller.call(&mut Call::new(Method::GET, url, Some(&access), "interface `/v2/`")).map(drop)
        };
        check().map_err(|kind| Error::new(registry, kind))
    }

    /// Reads a list page after page, until `take` has enough.
    fn pages(
        &self,
        repository: &ImageRef,
        mut url: Uri,
        what: &'static str,
        mut take: impl FnMut(&[u8]) -> Result<bool, ErrorKind>,
    ) -> Result<(), ErrorKind> {
        let access = pull(repository);
        for _ in 0..PAGE_LIMIT {
            let mut call = Call::new(Method::GET, url.clone(), Some(&access), what);
            let (headers, page) = crate::retry::with_retries(&self.caller.retry, || {
                let (headers, body) = parts(self.caller.attempt(&mut call)?);
                Ok((headers, bytes(body, MANIFEST_LIMIT)?))
            })?;
            if !take(&page)? {
                return Ok(());
            }
            let Some(next) = next_page(&headers) else { return Ok(()) };
            let next = join(&url, &next)?;
            if Origin::of(&next) != Origin::of(&url) {
                return Err(malformed("the list goes on at another host"));
            }
            url = next;
        }
        Err(malformed("a list without end"))
    }

    /// The URL of something in a repository.
    pub(crate) fn url(&self, repository: &ImageRef, path: &str) -> Result<Uri, ErrorKind> {
        let origin = self.caller.transport.origin(repository.registry())?;
        format!("{origin}/v2/{}/{path}", repository.repository())
            .parse()
            .map_err(|_| malformed("a name that no URL can hold"))
    }
}

/// To read from a repository.
pub(crate) fn pull(repository: &ImageRef) -> Access {
    access(repository, vec![format!("repository:{}:pull", repository.repository())])
}

/// To read and write.
pub(crate) fn push(repository: &ImageRef) -> Access {
    access(repository, vec![format!("repository:{}:pull,push", repository.repository())])
}

fn access(repository: &ImageRef, scopes: Vec<String>) -> Access {
    Access {
        registry: repository.registry().to_owned(),
        repository: repository.repository().to_owned(),
        scopes,
    }
}

/// The tag that stands for all that refers to a subject. Specification: distribution-spec § Referrers Tag
/// Schema.
pub(crate) fn referrers_tag(repository: &ImageRef, subject: Digest) -> ImageRef {
    let name = format!("{}:sha256-{}", repository.name(), subject.hex());
    name.parse().expect("the name of a reference with a tag of hex digits is a reference")
}

/// The digest that a registry announces, if it is one of ours.
pub(crate) fn announced(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

fn parts(response: Response<Body>) -> (HeaderMap, Body) {
    let (parts, body) = response.into_parts();
    (parts.headers, body)
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, ErrorKind> {
    json::from_slice(bytes).map_err(|e| malformed(&format!("{what}: {e}")))
}

/// What kind of manifest it is: as it says itself, else as the registry says.
fn media_type(headers: &HeaderMap, bytes: &[u8]) -> Result<String, ErrorKind> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest {
        schema_version: u8,
        media_type: Option<String>,
    }
    let Manifest { schema_version, media_type } = parse(bytes, "the manifest")?;
    if schema_version != 2 {
        return Err(malformed(
            "the manifest is of docker's schema 1: push the image anew with a client of this decade",
        ));
    }
    let header =
        || headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next().map(|text| text.trim().to_owned());
    media_type
        .filter(|text| !text.is_empty())
        .or_else(header)
        .filter(|text| text.contains("/vnd."))
        .ok_or_else(|| malformed("a manifest without a media type"))
}

/// The URL in `Link: <URL>; rel="next"`.
fn next_page(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .find_map(|link| {
            let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
            let is_next = |parameter: &str| {
                let parameter = parameter.trim().to_ascii_lowercase();
                matches!(parameter.as_str(), "rel=next" | "rel=\"next\"")
            };
            parameters.split(';').any(is_next).then(|| url.to_owned())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_linked() {
        for (link, want) in [
            (r#"</v2/a/tags/list?n=2&last=b>; rel="next""#, Some("/v2/a/tags/list?n=2&last=b")),
            (r#"</first>; rel="first", </next>; title=x; REL=next"#, Some("/next")),
            (r#"</first>; rel="first""#, None),
            ("nonsense", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, link.parse().unwrap());
            assert_eq!(next_page(&headers).as_deref(), want);
        }
    }

    #[test]
    fn manifests_have_a_media_type() {
        let oci = "application/vnd.oci.image.manifest.v1+json";
        let own = format!(r#"{{"schemaVersion": 2, "mediaType": "{oci}"}}"#);
        for (header, text, want) in [
            ("text/plain", own.as_str(), Some(oci)),
            (
                "application/vnd.x+json; charset=utf-8",
                r#"{"schemaVersion": 2}"#,
                Some("application/vnd.x+json"),
            ),
            ("application/json", r#"{"schemaVersion": 2}"#, None),
            (oci, r#"{"schemaVersion": 1}"#, None),
            (oci, "<html>", None),
            (oci, "{}", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, header.parse().unwrap());
            assert_eq!(media_type(&headers, text.as_bytes()).ok().as_deref(), want, "{text}");
        }
    }
}
