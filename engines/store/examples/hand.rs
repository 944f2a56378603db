use layerstack_store::*;
use std::path::Path;
struct P;
impl Progress for P {
    fn report(&self, s: &Step<'_>) {
        if s.done == 0 || Some(s.done) == s.total {
            eprintln!("{} {} {}/{:?}", s.stage, s.item, s.done, s.total);
        }
    }
}
fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let driver = std::env::var("DRIVER").unwrap_or("overlay2".into());
    let t = std::time::Instant::now();
    let store =
        Store::open(Path::new(&a[0]), &StoreConfig::new(layerstack::Config::new().with_driver(driver)))
            .unwrap();
    for r in store.recovered() {
        eprintln!("recovered: {r}");
    }
    eprintln!("open {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let j = |v: &dyn erased| println!("{}", v.j());
    match a[1].as_str() {
        "load" => {
            let mut r = LoadRequest::default();
            r.name = a.get(3).cloned();
            match if a[2] == "-" {
                store.load(LoadSource::Stream(&mut std::io::stdin()), &r, &P)
            } else {
                store.load(LoadSource::Path(Path::new(&a[2])), &r, &P)
            } {
                Ok(l) => j(&l),
                Err(e) => println!("{e:?}"),
            }
        }
        "images" => j(&store.images().unwrap()),
        "history" => j(&store.history(&a[2]).unwrap()),
        "create" => {
            let mut r = CreateContainer::default();
            r.name = a.get(3).cloned();
            j(&store.create_container(&a[2], &r).unwrap())
        }
        "ps" => j(&store.containers().unwrap()),
        "mount" => println!("{}", store.mount(&a[2], None).unwrap().display()),
        "umount" => store.umount(&a[2]).unwrap(),
        "diff" => {
            for c in store.diff(&a[2]).unwrap() {
                println!("{c}")
            }
        }
        "commit" => {
            let mut r = CommitRequest::default();
            r.name = Some(a[3].clone());
            r.changes = a[4..].to_vec();
            j(&store.commit(&a[2], &r, &P).unwrap())
        }
        "rm" => {
            store.remove_container(&a[2], &Default::default()).unwrap();
        }
        "rmi" => j(&store.remove_image(&a[2], &Default::default()).unwrap()),
        "tree" => j(&store.tree().unwrap()),
        "df" => j(&store.disk_usage().unwrap()),
        "prune" => {
            let mut r = PruneRequest::default();
            r.all = a.len() > 2;
            j(&store.prune(&r).unwrap())
        }
        "check" => {
            let mut r = CheckRequest::default();
            r.deep = a.len() > 2;
            for f in store.check(&r, &Silent).unwrap() {
                println!("{f}")
            }
        }
        "save" => {
            let mut r = SaveRequest::default();
            r.format = a[2].parse().unwrap();
            let p = Path::new(&a[3]);
            let t = if p.is_dir() { SaveTarget::Directory(p) } else { SaveTarget::File(p) };
            j(&store.save(&a[4..].iter().map(String::as_str).collect::<Vec<_>>(), &r, t, &P).unwrap())
        }
        "info" => j(&store.info().unwrap()),
        _ => panic!(),
    }
    eprintln!("took {:?}", t.elapsed());
}
trait erased {
    fn j(&self) -> String;
}
impl<T: serde::Serialize> erased for T {
    fn j(&self) -> String {
        serde_json::to_string_pretty(self).unwrap()
    }
}
