//! The versions of the APIs that lifecycle and launcher speak: minor versions of 0.x.

use core::ops::RangeInclusive;

/// Of the Platform API.
pub const PLATFORM: RangeInclusive<u32> = 7..=15;

/// Of the Buildpack API.
pub const BUILDPACK: RangeInclusive<u32> = 7..=12;
