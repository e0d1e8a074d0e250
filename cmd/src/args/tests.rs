//! Resolution of every phase: precedence, versions, and what is refused.

use std::path::{Path, PathBuf};

use drydock_encode::compress::Compression;
use drydock_io::access::User;
use drydock_layout::{Durability, LinkMode};
use drydock_phases::export::CacheLocation;
use drydock_phases::extend::ExtendKind;
use drydock_phases::{Error, Kind};

use super::testing::{ME, Remembered, options};
use super::*;
use crate::privileges::{Outputs, Privileges};

const LAYOUT: &[(&str, &str)] = &[("CNB_USE_OCI_LAYOUT", "true")];
const NO_CACHE: &str = "Warn No cached data will be used, no cache specified.";
const REQUESTED: &str = "Platform requested experimental feature 'export to OCI layout format'";

fn analyze(env: &[(&str, &str)], arguments: &[&str]) -> Result<Task<drydock_phases::analyze::Inputs>, Error> {
    let options = options(Phase::Analyze, "0.14", env, arguments);
    analyze::resolve(&options, &Remembered::default())
}

fn export(env: &[(&str, &str)], arguments: &[&str]) -> Result<Task<drydock_phases::export::Inputs>, Error> {
    export::resolve(&options(Phase::Export, "0.14", env, arguments), &Remembered::default())
}

/// Kind and text of an error.
fn told<T>(result: Result<T, Error>) -> (Kind, String) {
    match result {
        Ok(_) => panic!("this must be refused"),
        Err(error) => (error.kind, error.to_string()),
    }
}

#[test]
fn paths_are_made_absolute_without_a_look_at_the_disk() {
    for (path, want) in [
        ("/a/b", "/a/b"),
        ("a", "/w/d/a"),
        (".", "/w/d"),
        ("../x/./y//z/", "/w/x/y/z"),
        ("/../../x", "/x"),
        ("/a/b/../c", "/a/c"),
        ("/", "/"),
    ] {
        assert_eq!(absolute(Path::new("/w/d"), Path::new(path)), Path::new(want), "{path}");
    }
}

#[test]
fn flags_win_over_variables_and_these_over_defaults() {
    let set = [LAYOUT[0], ("CNB_LAYERS_DIR", "/from-env"), ("CNB_RUN_PATH", "")];
    for (env, arguments, layers, analyzed) in [
        (LAYOUT, &["app"][..], "/layers", "/layers/analyzed.toml"),
        (&set, &["app"], "/from-env", "/from-env/analyzed.toml"),
        (&set, &["-layers", "l", "app"], "/work dir/l", "/work dir/l/analyzed.toml"),
        (&set, &["-layers=", "app"], "/from-env", "/from-env/analyzed.toml"),
        (&set, &["-layers=/l", "-analyzed=/a.toml", "app"], "/l", "/a.toml"),
    ] {
        let inputs = analyze(env, arguments).unwrap().inputs.unwrap();
        assert_eq!(inputs.layers_dir, Path::new(layers), "{arguments:?}");
        assert_eq!(inputs.analyzed_path, Path::new(analyzed), "{arguments:?}");
        assert_eq!(inputs.run_path, Path::new("/cnb/run.toml"));
    }
}

#[test]
fn the_user_is_told_or_the_current_one() {
    for (env, arguments, uid, gid) in [
        (&[][..], &["app"][..], ME.uid, ME.gid),
        (&[("CNB_USER_ID", "7"), ("CNB_GROUP_ID", "0x8")], &["app"], 7, 8),
        (&[("CNB_USER_ID", "7"), ("CNB_GROUP_ID", "")], &["-uid", "9", "app"], 9, ME.gid),
    ] {
        let env = [LAYOUT, env].concat();
        let task = export(&env, arguments).unwrap();
        let inputs = task.inputs.unwrap();
        assert_eq!((inputs.owner.uid, inputs.owner.gid), (uid, gid));
        assert!(matches!(task.privileges, Privileges::Drop { user, .. } if user == User { uid, gid }));
    }
}

#[test]
fn what_cannot_be_read_is_refused_by_name_and_value() {
    for (variable, value, flag) in [
        ("CNB_USER_ID", "abc", "-uid"),
        ("CNB_GROUP_ID", "-1", "-gid"),
        ("CNB_USE_DAEMON", "yes", "-daemon"),
        ("CNB_PARALLEL_EXPORT", "2", "-parallel"),
        ("CNB_USE_OCI_LAYOUT", "maybe", "-layout"),
    ] {
        let env =
            [&[("CNB_USE_LAYOUT", "true"), ("CNB_EXPERIMENTAL_MODE", "quiet")][..], &[(variable, value)]]
                .concat();
        let (kind, text) = told(export(&env, &["app"]));
        assert_eq!(kind, Kind::Arguments);
        let want = format!("failed to resolve inputs: {variable} is `{value}`: ");
        assert!(text.starts_with(&want), "{text}");

        let (kind, text) = told(export(LAYOUT, &[&format!("{flag}={value}"), "app"]));
        assert_eq!(kind, Kind::Arguments);
        assert!(text.starts_with(&format!("failed to resolve inputs: {flag} is `{value}`: ")), "{text}");
    }
}

#[test]
fn layouts_have_synonyms_that_must_agree() {
    let quiet = ("CNB_EXPERIMENTAL_MODE", "quiet");
    for (env, arguments, want) in [
        (&[("CNB_USE_OCI_LAYOUT", "true")][..], &["app"][..], Some("/layout-repo")),
        (&[("CNB_USE_LAYOUT", "1")], &["app"], Some("/layout-repo")),
        (&[("CNB_USE_LAYOUT", "true"), ("CNB_LAYOUT_DIR", "/a")], &["app"], Some("/a")),
        (
            &[("CNB_USE_LAYOUT", "t"), ("CNB_USE_OCI_LAYOUT", "1"), ("CNB_OCI_LAYOUT_PATH", "/b")],
            &["app"],
            Some("/b"),
        ),
        (
            &[("CNB_USE_LAYOUT", "1"), ("CNB_LAYOUT_DIR", "/b/"), ("CNB_OCI_LAYOUT_PATH", "/b")],
            &["app"],
            Some("/b"),
        ),
        (
            &[("CNB_USE_LAYOUT", "0"), ("CNB_LAYOUT_DIR", "/a")],
            &["-layout", "-layout-dir=r", "app"],
            Some("/work dir/r"),
        ),
        (&[("CNB_USE_LAYOUT", "1"), ("CNB_USE_OCI_LAYOUT", "0")], &["-layout", "app"], Some("/layout-repo")),
        (
            &[("CNB_OCI_LAYOUT_PATH", "/a"), ("CNB_LAYOUT_DIR", "/b")],
            &["-layout", "-layout-dir", "/c", "app"],
            Some("/c"),
        ),
        (&[("CNB_OCI_LAYOUT_PATH", "/a")], &["app"], None),
        (&[("CNB_USE_OCI_LAYOUT", "true")], &["-layout=false", "app"], None),
        (&[], &["-daemon", "app"], None),
    ] {
        let got = analyze(&[env, &[quiet]].concat(), arguments).unwrap().inputs;
        if let Some(dir) = want {
            assert_eq!(got.unwrap().layout_dir.path(), Path::new(dir), "{env:?}");
        } else {
            let error = got.unwrap_err();
            assert_eq!(error.kind, Kind::Phase);
            assert!(error.help.unwrap().contains("CNB_USE_OCI_LAYOUT=true"), "{env:?}");
        }
    }
    for (env, names) in [
        (
            [("CNB_USE_LAYOUT", "1"), ("CNB_USE_OCI_LAYOUT", "false")],
            ["CNB_USE_LAYOUT", "CNB_USE_OCI_LAYOUT"],
        ),
        (
            [("CNB_LAYOUT_DIR", "/a"), ("CNB_OCI_LAYOUT_PATH", "/b")],
            ["CNB_LAYOUT_DIR", "CNB_OCI_LAYOUT_PATH"],
        ),
    ] {
        let (kind, text) = told(analyze(&[&env[..], &[quiet]].concat(), &["app"]));
        assert_eq!(kind, Kind::Arguments);
        assert!(names.iter().all(|name| text.contains(name)), "{text}");
    }
}

#[test]
fn layout_flags_hold_at_every_version() {
    for api in PlatformApi::all() {
        for phase in [Phase::Analyze, Phase::Restore, Phase::Export, Phase::Create, Phase::Rebase] {
            let options = options(phase, &api.to_string(), &[], &["-layout", "-layout-dir", "/l"]);
            let layout = Layout::of(&options).unwrap();
            assert_eq!(layout.dir_if_asked().unwrap().path(), Path::new("/l"), "{phase} {api}");
        }
    }
}

#[test]
fn experimental_mode_guards_the_specifications_names() {
    let (oci, cnb) = (("CNB_USE_OCI_LAYOUT", "true"), ("CNB_USE_LAYOUT", "true"));
    let warned: &[String] = &[format!("Warn {REQUESTED}")];
    let refused: &[String] = &[format!("Error {REQUESTED}")];
    for (asked, mode, want, said) in [
        (cnb, "quiet", Ok(()), &[][..]),
        (cnb, "silent", Ok(()), &[]),
        (cnb, "warn", Ok(()), warned),
        (cnb, "error", Err(Kind::General), refused),
        (cnb, "", Err(Kind::General), refused),
        (cnb, "loud", Err(Kind::Arguments), &[]),
        (oci, "quiet", Ok(()), &[]),
        (oci, "warn", Ok(()), warned),
        (oci, "error", Err(Kind::General), refused),
        (oci, "", Ok(()), &[]),
    ] {
        let log = Remembered::default();
        let options = options(Phase::Analyze, "0.14", &[asked, ("CNB_EXPERIMENTAL_MODE", mode)], &["app"]);
        let got = analyze::resolve(&options, &log).map(drop);
        if want == Err(Kind::General) {
            let text = got.as_ref().unwrap_err().to_string();
            assert_eq!(text, "experimental features are disabled by CNB_EXPERIMENTAL_MODE=error");
        }
        assert_eq!(got.map_err(|error| error.kind), want, "{asked:?} {mode}");
        assert_eq!(log.take(), said, "{asked:?} {mode}");
    }
    // The flag is one of the specification's names; the restorer, which exports nothing, is not guarded.
    assert_eq!(told(analyze(&[], &["-layout", "app"])).0, Kind::General);
    assert!(analyze(&[oci], &["-layout", "app"]).is_ok());
    let options = options(Phase::Restore, "0.14", &[cnb], &[]);
    assert!(restore::resolve(&options, &Remembered::default()).is_ok());
}

#[test]
fn a_daemon_beside_layouts_is_refused() {
    for (env, arguments) in
        [(LAYOUT, &["-daemon", "app"][..]), (&[LAYOUT[0], ("CNB_USE_DAEMON", "true")], &["app"])]
    {
        let (kind, text) = told(export(env, arguments));
        assert_eq!(kind, Kind::Arguments);
        assert_eq!(text, "failed to resolve inputs: exporting to multiple targets is unsupported");
    }
    assert!(export(&[LAYOUT[0], ("CNB_USE_DAEMON", "true")], &["-daemon=false", "app"]).is_ok());
}

#[test]
fn wrong_arguments_are_refused() {
    for (arguments, want) in [
        (&[][..], "failed to parse arguments: received 0 arguments, but expected 1"),
        (&["a1", "b1"], "failed to parse arguments: received 2 arguments, but expected 1"),
        (&[""], "failed to resolve inputs: image argument is required"),
        (&["UPPER/x"], "failed to resolve inputs: could not parse reference: `UPPER/x`"),
        (&["-run-image", "../../etc/passwd", "app"], "failed to resolve inputs: could not parse reference"),
        (&["-previous-image", "a//b", "app"], "failed to resolve inputs: could not parse reference"),
        (&["-cache-image", "/etc", "app"], "failed to resolve inputs: could not parse reference"),
    ] {
        // Without layouts too: arguments come first.
        for env in [LAYOUT, &[]] {
            let (kind, text) = told(analyze(env, arguments));
            assert_eq!(kind, Kind::Arguments);
            assert!(text.starts_with(want), "{text}");
        }
    }
    for (arguments, want) in [
        (&[][..], "failed to parse arguments: at least one image argument is required"),
        (&["-run-image", "run", "app"], "failed to resolve inputs: -run-image is unsupported"),
        (&["-image", "run", "app"], "failed to resolve inputs: -image is unsupported"),
    ] {
        assert_eq!(told(export(LAYOUT, arguments)), (Kind::Arguments, want.to_owned()));
    }
    assert!(export(&[LAYOUT[0], ("CNB_RUN_IMAGE", "run")], &["app"]).is_ok());
    assert!(export(LAYOUT, &["app", "reg.io/app"]).is_ok());
    for (phase, want) in [
        (Phase::Detect, "received unexpected arguments"),
        (Phase::Build, "received unexpected arguments"),
        (Phase::Extend, "received unexpected arguments"),
        (Phase::Restore, "received unexpected Args"),
    ] {
        let options = options(phase, "0.14", &[], &["x"]);
        let got = match phase {
            Phase::Detect => detect::resolve(&options).map(drop),
            Phase::Build => build::resolve(&options).map(drop),
            Phase::Extend => extend::resolve(&options).map(drop),
            _ => restore::resolve(&options, &Remembered::default()).map(drop),
        };
        assert_eq!(told(got), (Kind::Arguments, format!("failed to parse arguments: {want}")));
    }
}

#[test]
fn what_has_no_effect_is_told() {
    let log = Remembered::default();
    let all = ["-launch-cache=/l", "-insecure-registry", "x", "-daemon=0", "app"];
    export::resolve(&options(Phase::Export, "0.14", LAYOUT, &all), &log).unwrap();
    assert_eq!(
        log.take(),
        [
            NO_CACHE,
            "Warn Ignoring -launch-cache, only intended for use with -daemon",
            "Warn Ignoring -insecure-registry, images are layouts on disk and no registry is used",
        ]
    );
    let env = [LAYOUT[0], ("CNB_PARALLEL_EXPORT", "true")];
    analyze::resolve(&options(Phase::Analyze, "0.14", &env, &["app"]), &log).unwrap();
    let said = log.take();
    assert!(said.len() == 1 && said[0].starts_with("Warn Parallel export has been enabled"), "{said:?}");
    let env = [env[0], env[1], ("CNB_CACHE_DIR", "/c")];
    analyze::resolve(&options(Phase::Analyze, "0.14", &env, &["app"]), &log).unwrap();
    assert_eq!(log.take(), [""; 0]);
}

#[test]
fn the_analyzer() {
    let task = analyze(
        LAYOUT,
        &["-run-image", "run", "-skip-layers", "-launch-cache", "/lc", "-tag", "app:2", "app"],
    )
    .unwrap();
    let volumes = [PathBuf::from("/layers"), PathBuf::from("/lc")];
    assert_eq!(task.privileges, Privileges::Drop { user: ME, volumes: volumes.into(), outputs: None });
    let inputs = task.inputs.unwrap();
    assert_eq!(inputs.output_image.path(), Path::new("/layout-repo/index.docker.io/library/app/latest"));
    assert_eq!(inputs.previous_image, "app");
    assert_eq!(inputs.run_image.as_deref(), Some("run"));
    assert!(inputs.skip_layers);
    for (variable, want) in [("CNB_SKIP_LAYERS", true), ("CNB_SKIP_RESTORE", true), ("CNB_OTHER", false)] {
        let env = [LAYOUT[0], (variable, "true"), ("CNB_PREVIOUS_IMAGE", "before")];
        let inputs = analyze(&env, &["app"]).unwrap().inputs.unwrap();
        assert_eq!(inputs.skip_layers, want);
        assert_eq!(inputs.previous_image, "before");
        assert!(!analyze(&env, &["-skip-layers=false", "app"]).unwrap().inputs.unwrap().skip_layers);
    }
}

#[test]
fn the_exporter() {
    let env = [LAYOUT[0], ("SOURCE_DATE_EPOCH", "soon"), ("CNB_EXEC_ENV", "test"), ("CNB_CACHE_DIR", "/c")];
    let task =
        export(&env, &["-process-type", "web", "-parallel", "app", "app:2", "app:latest", ""]).unwrap();
    let inputs = task.inputs.unwrap();
    let names: Vec<_> =
        inputs.output.names.iter().map(drydock_model::reference::LayoutPath::ref_name).collect();
    assert_eq!(names, ["latest", "2"]);
    assert_eq!(inputs.cache, Some(CacheLocation::Dir("/c".into())));
    assert_eq!(inputs.launcher.path, Path::new("/cnb/lifecycle/launcher"));
    assert_eq!(inputs.output.report_path, Path::new("/layers/report.toml"));
    assert_eq!(inputs.process_type.as_deref(), Some("web"));
    assert_eq!(inputs.source_date_epoch.as_deref(), Some("soon"));
    assert_eq!((inputs.exec_env.as_str(), inputs.layer_compression), ("test", Compression::default()));
    let Privileges::Drop { volumes, outputs, .. } = task.privileges else {
        panic!("the exporter drops root")
    };
    assert_eq!(volumes, [Path::new("/c")]);
    let layout = Layout::of(&options(Phase::Export, "0.14", LAYOUT, &[])).unwrap();
    assert_eq!(outputs, Outputs::of(&layout, inputs.output.names.iter()));

    // A cache image stands before a cache folder, and is written to as well.
    let task = export(&env, &["-cache-image", "cache", "app"]).unwrap();
    let Some(CacheLocation::Image(image)) = task.inputs.unwrap().cache else { panic!("it was given") };
    assert!(image.path().ends_with("library/cache/latest"));
    let Privileges::Drop { outputs, .. } = task.privileges else { panic!("the exporter drops root") };
    let app = layout.resolve("app").unwrap();
    assert_eq!(outputs, Outputs::of(&layout, [&app, &image].into_iter()));
}

#[test]
fn the_restorer_needs_layouts_only_for_images() {
    for (arguments, want) in [
        (&["-cache-dir", "/c"][..], true),
        (&[], true),
        (&["-cache-image", "cache"], false),
        (&["-build-image", "build"], false),
    ] {
        let options = options(Phase::Restore, "0.14", &[], arguments);
        let task = restore::resolve(&options, &Remembered::default()).unwrap();
        assert_eq!(
            task.inputs.map(|args| args.layout_dir).map_err(|e| e.kind),
            want.then_some(None).ok_or(Kind::Phase)
        );
    }
}

#[test]
fn detector_and_builder_refuse_root() {
    let args = detect::resolve(&options(Phase::Detect, "0.15", &[("CNB_ORDER_PATH", "o")], &[])).unwrap();
    assert_eq!(args.privileges, Privileges::RefuseRoot);
    let args = args.inputs.unwrap();
    assert_eq!((args.order_path.as_path(), args.exec_env.as_str()), (Path::new("/work dir/o"), "production"));
    let args =
        build::resolve(&options(Phase::Build, "0.7", &[("CNB_BUILD_CONFIG_DIR", "/bc")], &[])).unwrap();
    assert_eq!(args.privileges, Privileges::RefuseRoot);
    assert_eq!(args.inputs.unwrap().build_config_dir, Path::new("/bc"));
}

#[test]
fn the_order_is_looked_for_in_the_layers_directory_first() {
    let layers = tempfile::tempdir().unwrap();
    let order = || {
        let layers = layers.path().to_str().unwrap();
        options(Phase::Detect, "0.14", &[], &["-layers", layers]).order_path()
    };
    assert_eq!(order(), Path::new("/cnb/order.toml"));
    std::fs::write(layers.path().join("order.toml"), "").unwrap();
    assert_eq!(order(), layers.path().join("order.toml"));
}

#[test]
fn the_extender() {
    let resolve = |arguments: &[&str]| extend::resolve(&options(Phase::Extend, "0.14", &[], arguments));
    let args = resolve(&["-kind=run", "-kaniko-cache-ttl=1h"]).unwrap().inputs.unwrap();
    assert_eq!((args.extend.kind, args.extend.cache_ttl.as_secs()), (ExtendKind::Run, 3600));
    let args = resolve(&[]).unwrap().inputs.unwrap();
    assert_eq!((args.extend.kind, args.extend.cache_ttl.as_secs()), (ExtendKind::Build, 336 * 3600));
    assert_eq!(told(resolve(&["-kind", "base"])).0, Kind::Arguments);
    assert_eq!(told(resolve(&["-kaniko-cache-ttl", "2w"])).0, Kind::Arguments);
}

#[test]
fn the_rebaser() {
    let resolve = |env: &[(&str, &str)], arguments: &[&str]| {
        rebase::resolve(&options(Phase::Rebase, "0.14", env, arguments), &Remembered::default())
    };
    let args = resolve(LAYOUT, &["-force", "-image", "old", "app"]).unwrap().inputs.unwrap();
    assert_eq!((args.run_image.as_deref(), args.force), (Some("old"), true));
    assert_eq!(args.previous_image, args.output.names[0]);
    let env = [LAYOUT[0], ("CNB_RUN_IMAGE", "run")];
    let args = resolve(&env, &["-previous-image", "before", "app"]).unwrap().inputs.unwrap();
    assert_eq!((args.run_image.as_deref(), args.force), (Some("run"), false));
    assert!(args.previous_image.path().ends_with("before/latest"));
    let (kind, text) = told(resolve(LAYOUT, &["-image", "a1", "-run-image", "b1", "app"]));
    assert_eq!(kind, Kind::Arguments);
    assert_eq!(text, "failed to resolve inputs: supply only one of -run-image or (deprecated) -image");
}

#[test]
fn the_creator_has_what_its_phases_have() {
    let env = [LAYOUT[0], ("CNB_ANALYZED_PATH", "/a.toml"), ("HOME", "/elsewhere"), ("KEPT", "1")];
    let arguments = ["-uid=0", "-gid=5", "-skip-restore", "-cache-dir=/c", "-layers=/l", "-tag=app:2", "app"];
    let log = Remembered::default();
    let task = create::resolve(&options(Phase::Create, "0.12", &env, &arguments), &log).unwrap();
    let Privileges::Drop { user, volumes, outputs } = task.privileges else {
        panic!("the creator drops root")
    };
    assert_eq!(user, User { uid: 0, gid: 5 });
    assert_eq!(volumes, [Path::new("/c"), Path::new("/l")]);
    assert!(outputs.is_some());
    let args = task.inputs.unwrap();
    assert!(args.analyze.skip_layers && args.restore.skip_layers);
    for path in [
        args.analyze.analyzed_path,
        args.detect.analyzed_path,
        args.restore.analyzed_path,
        args.export.files.analyzed,
    ] {
        assert_eq!(path, Path::new("/a.toml"));
    }
    assert_eq!(args.restore.cache, args.export.cache);
    assert_eq!(args.export.output.names.len(), 2);
    assert_eq!(args.build.env, args.detect.env);
    let env: Env = args.build.env.into_iter().collect();
    let variable = |name| env.value(name).map(|value| value.text.into_string().unwrap());
    assert_eq!(variable("USER").as_deref(), Some("root"));
    assert_ne!(variable("HOME").as_deref(), Some("/elsewhere"));
    assert_eq!(variable("KEPT").as_deref(), Some("1"));
    assert_eq!(log.take(), [""; 0]);
}

#[test]
fn a_log_is_kept_where_flag_or_variable_say() {
    let env = &[("CNB_BUILD_LOG", "auto"), ("CNB_LAYERS_DIR", "/l")];
    let in_file = |path: &str| Some(Kept::InFile(path.into()));
    let beside = Some(Kept::BesideImage { layers_dir: "/l".into() });
    for (phase, env, arguments, want) in [
        (Phase::Build, &[][..], &[][..], None),
        (Phase::Build, env, &[], beside.clone()),
        (Phase::Build, env, &["-log-file", "log"], in_file("/work dir/log")),
        (Phase::Build, env, &["-log-file", "./auto"], in_file("/work dir/auto")),
        (Phase::Build, env, &["-log-file="], beside.clone()),
        (Phase::Create, env, &["app"], beside.clone()),
        (Phase::Create, &[("CNB_BUILD_LOG", "/x")], &["app"], in_file("/x")),
        (Phase::Rebase, env, &["app"], None),
        (Phase::Extend, env, &[], beside),
    ] {
        assert_eq!(options(phase, "0.14", env, arguments).build_log(), want, "{phase} {arguments:?}");
    }
}

/// Every flag that the reference has at some version, by the version that brought it and the last that had it.
#[test]
fn each_phase_has_its_flags_at_each_version() {
    let common = ["help", "log-level", "no-color", "version"];
    for (phase, table) in [
        (
            Phase::Analyze,
            "log-file analyzed cache-image daemon gid layers previous-image run-image tag uid stack<12 launch-cache>9 \
            skip-layers>9 run>12 insecure-registry>13 layout layout-dir",
        ),
        (
            Phase::Detect,
            "log-file app buildpacks group layers order plan platform analyzed>10 extensions>10 generated>10 \
            build-config>11 run>12 system>15",
        ),
        (
            Phase::Restore,
            "log-file analyzed cache-dir cache-image gid group layers skip-layers uid build-image>10 daemon>12 \
            generated>12 insecure-registry>13 run>14 layout layout-dir",
        ),
        (
            Phase::Extend,
            "log-file analyzed app buildpacks generated gid group kaniko-cache-ttl layers plan platform uid \
            extended>12 kind>12",
        ),
        (Phase::Build, "log-file app buildpacks group layers plan platform build-config>11 analyzed>12"),
        (
            Phase::Export,
            "log-file analyzed app cache-dir cache-image daemon gid group image launch-cache launcher layers parallel \
            process-type project-metadata report run-image uid stack<12 launcher-sbom>11 extended>12 run>12 \
            insecure-registry>13 layout layout-dir layer-compression",
        ),
        (
            Phase::Create,
            "log-file app buildpacks cache-dir cache-image daemon gid launch-cache launcher layers order parallel \
            platform previous-image process-type project-metadata report run-image skip-restore stack tag uid \
            build-config>11 launcher-sbom>11 run>12 insecure-registry>13 system>15 layout layout-dir layer-compression",
        ),
        (
            Phase::Rebase,
            "daemon gid image report run-image uid previous-image>11 force>12 insecure-registry>13 \
            layout layout-dir",
        ),
    ] {
        for minor in 7..=15 {
            let is_in = |entry: &&str| match entry.split_once(['<', '>']) {
                Some((_, since)) if entry.contains('>') => minor >= since.parse().unwrap(),
                Some((_, until)) => minor < until.parse().unwrap(),
                None => true,
            };
            let names =
                table.split_whitespace().filter(is_in).map(|entry| entry.split(['<', '>']).next().unwrap());
            let mut want: Vec<&str> = names.chain(common).collect();
            want.sort_unstable();
            let command = command_line::command(phase, PlatformApi::minor(minor), offers(phase));
            let mut got: Vec<&str> = command.get_arguments().filter_map(|a| a.get_long()).collect();
            got.sort_unstable();
            assert_eq!(got, want, "{phase} 0.{minor}");
            command.debug_assert();
        }
    }
}

#[test]
fn how_layers_are_compressed_and_blobs_linked() {
    let inputs = |env: &[(&str, &str)], arguments: &[&str]| {
        let env = [LAYOUT, env].concat();
        export(&env, &[arguments, &["app"]].concat()).map(|task| task.inputs.unwrap())
    };
    let by_default = inputs(&[], &[]).unwrap();
    assert_eq!(
        (by_default.layer_compression, by_default.output.link),
        (Compression::default(), LinkMode::Auto)
    );
    assert_eq!(by_default.output.durability, Durability::OnDisk);
    let chosen = inputs(
        &[("CNB_LAYER_COMPRESSION", "none"), ("CNB_LAYOUT_LINK", "copy"), ("CNB_LAYOUT_SYNC", "false")],
        &["-layer-compression", "zstd:3"],
    )
    .unwrap();
    assert_eq!((chosen.layer_compression, chosen.output.link), ("zstd:3".parse().unwrap(), LinkMode::Copy));
    assert_eq!(chosen.output.durability, Durability::InMemory);
    for (name, value) in [
        ("CNB_LAYER_COMPRESSION", "gzip:0"),
        ("CNB_LAYER_COMPRESSION", "lzma"),
        ("CNB_LAYOUT_LINK", "symlink"),
    ] {
        let (kind, text) = told(inputs(&[(name, value)], &[]));
        assert_eq!(kind, Kind::Arguments);
        assert!(text.contains(name) && text.contains(value), "{text}");
    }
}
