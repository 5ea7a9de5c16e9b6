//! `cargo bench-sync reads`: reading twins by `twinsync serve`, beside Cosmos DB by its SDK and beside the IoT hub within the limits of its
//! tiers.
//!
//! All of them read the same fleet in one run, with the same number of concurrent clients. The hub's rates are limited by its quota, for
//! which its clients have to wait. devkit applies Microsoft's published limits.

use std::{
    fmt,
    num::NonZeroU32,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use azure_data_cosmos::{
    ContainerClient, FeedScope, Query,
    options::{MaxItemCountHint, QueryOptions},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use devkit::{
    daemon::{Daemon, Setup, free_port},
    fleet::Rounds,
    iothub::api::{Quota, Tier},
};
use futures::{TryStreamExt as _, future::try_join_all};
use hmac::{Hmac, Mac as _};
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::Sha256;
use twinsync::domain::id::{DocumentIdScheme, TwinKey};

use crate::{azure::Azure, bare, command, daemon::Place, registry, workload::Programs};

/// Size of the tags of every twin, in bytes.
const TWIN_BYTES: usize = 1 << 10;
const PARTITIONS: u16 = 4;
/// The number for 150 MB of documents. It is smaller than in other workloads, where many writes would wait for the emulator.
const PHYSICAL_PARTITIONS: u32 = 4;
/// Number of concurrent clients that read single twins.
const POINT_CLIENTS: usize = 16;
/// Number of concurrent clients that query. For each query, the emulator examines every document, on the same cores as all other processes.
const QUERY_CLIENTS: usize = 2;
/// Time limit for completing a declared count. The emulator examines every document for each page of changes.
const COUNT_LIMIT: Duration = Duration::from_secs(600);
/// Number of rows per page.
const PAGE: NonZeroU32 = NonZeroU32::new(100).expect("100 is not 0");
/// How long a client waits after a refusal of the hub. The official clients wait this long at first.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);
/// The policy of the read API, and its key. They protect nothing.
const POLICY: &str = "bench";
const KEY: &str = "BwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSY=";
const VERSION: &str = "api-version=2021-04-12";

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A fifth of the twins, and a third of the time.
    #[arg(long)]
    quick: bool,
    /// Prints one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

/// The kind of read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Read {
    /// A twin by its id.
    Point,
    /// A page of 100 of the twins that a condition on a tag selects.
    List,
    /// The number of twins that a condition on a tag selects. These are half of them.
    Count,
}

impl Read {
    const ALL: [Self; 3] = [Self::Point, Self::List, Self::Count];

    const fn clients(self) -> usize {
        match self {
            Self::Point => POINT_CLIENTS,
            Self::List | Self::Count => QUERY_CLIENTS,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Point => "point read",
            Self::List => "page of 100 by a tag",
            Self::Count => "count by a tag",
        }
    }

    /// The query in IoT Hub's language.
    const fn query(self) -> &'static str {
        match self {
            Self::Point => "",
            Self::List => "SELECT * FROM devices WHERE tags.group00.[[setting-0000]] >= 'fe'",
            Self::Count => "SELECT COUNT() AS n FROM devices WHERE tags.group00.[[setting-0000]] >= '80'",
        }
    }
}

/// The service that is read.
#[derive(Debug, Clone, Copy)]
enum Side {
    Copy,
    /// A count that the daemon keeps current.
    Declared,
    Cosmos,
    Hub(Tier),
}

impl Side {
    const ALL: [Self; 6] = [
        Self::Copy,
        Self::Declared,
        Self::Cosmos,
        Self::Hub(Tier::S1),
        Self::Hub(Tier::S2),
        Self::Hub(Tier::S3),
    ];

    fn name(self) -> String {
        match self {
            Self::Copy => "twinsync serve".to_owned(),
            Self::Declared => "twinsync, a declared count".to_owned(),
            Self::Cosmos => "Cosmos DB by its SDK".to_owned(),
            Self::Hub(tier) => format!("IoT Hub, one unit of {tier:?}"),
        }
    }
}

/// The figures of one kind of read on one service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    read: Read,
    side: String,
    answered: usize,
    /// Number of answers that asked the client to wait.
    refused: usize,
    /// Whether the read was refused because it takes more than one request may take.
    too_expensive: bool,
    per_second: f64,
    /// From the first attempt to the answer, in seconds.
    p50: f64,
    p99: f64,
    request_units_each: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    twins: usize,
    seconds: f64,
    rows: Vec<Row>,
}

/// Measures, and returns the result as text.
///
/// # Errors
/// A process fails, an answer is wrong, or a document differs from its twin.
pub(crate) async fn measure(
    programs: &Programs,
    arguments: &Arguments,
    progress: &dyn Fn(&str),
) -> Result<String> {
    let (twins, seconds) = if arguments.quick { (20_000, 5.0) } else { (100_000, 15.0) };
    progress(&format!("{twins} twins are registered and backfilled"));
    let bench = Box::pin(Bench::start(programs, twins, Duration::from_secs_f64(seconds), progress)).await?;
    let mut rows = Vec::new();
    for read in Read::ALL {
        for side in Side::ALL {
            // The SDK sends no counts over several partitions. Only counts can be declared.
            let asks = match side {
                Side::Cosmos => read != Read::Count,
                Side::Declared => read == Read::Count,
                Side::Copy | Side::Hub(_) => true,
            };
            if !asks {
                continue;
            }
            progress(&format!("{}: {}", read.name(), side.name()));
            let row = Box::pin(bench.measure(read, side)).await?;
            progress(&match row.too_expensive {
                true => "  refused: one request may not take so much".to_owned(),
                false => format!("  {:.1} per second", row.per_second),
            });
            rows.push(row);
        }
    }
    let report = bench.azure.verify().await?;
    progress(&report.to_string());
    for process in bench.processes {
        process.stop().await?;
    }
    let outcome = Outcome { twins, seconds, rows };
    Ok(match arguments.json {
        true => serde_json::to_string(&outcome)?,
        false => outcome.to_string(),
    })
}

struct Bench {
    azure: Azure,
    /// The processes that serve reads and keep the count current.
    processes: Vec<Daemon>,
    asker: Arc<Asker>,
    duration: Duration,
    /// The directories of these processes, which must exist as long as they run.
    _places: [tempfile::TempDir; 2],
}

/// The state that the clients share.
struct Asker {
    http: Client,
    container: ContainerClient,
    copy: Url,
    copy_authorization: String,
    /// The process with the declared count.
    counts: Url,
    hub: Url,
    hub_host: String,
    hub_name: String,
    token: String,
    devices: Vec<String>,
}

impl Bench {
    async fn start(
        programs: &Programs,
        twins: usize,
        duration: Duration,
        progress: &dyn Fn(&str),
    ) -> Result<Self> {
        let azure = Azure::in_few_partitions(&programs.devkit, PARTITIONS, PHYSICAL_PARTITIONS).await?;
        let rounds = Rounds {
            devices: twins,
            prefix: String::new(),
            register: true,
            rounds: 0,
            bytes: TWIN_BYTES,
            seed: 0,
        };
        azure.load(&rounds).await?;
        let place = Place::new(&programs.twinsync)?;
        let more = registry::configuration(&azure);
        let filled =
            Box::pin(command::run(&azure, &place, &["backfill", "--json"], &more, twins as u64)).await?;
        ensure!(filled.writes >= twins as u64, "{} of {twins} documents were written", filled.writes);
        let (serve, copy, directory) = serve(&programs.twinsync, &azure).await?;
        let began = Instant::now();
        let (counting, counts, counting_directory) = count(&programs.twinsync, &azure).await?;
        progress(&format!(
            "a declared count is complete {:.1} s after its daemon's start",
            began.elapsed().as_secs_f64()
        ));
        let endpoints = &azure.endpoints;
        let asker = Asker {
            counts,
            http: Client::builder().pool_max_idle_per_host(POINT_CLIENTS).build()?,
            container: bare::connect(endpoints).await?,
            copy,
            copy_authorization: signature()?,
            hub: endpoints.iothub.parse()?,
            hub_host: endpoints.iothub_host_name.clone(),
            hub_name: endpoints.iothub_name.clone(),
            token: endpoints.token.clone(),
            devices: azure.devices(10_000).await?,
        };
        let processes = vec![serve, counting];
        Ok(Self {
            azure,
            processes,
            asker: Arc::new(asker),
            duration,
            _places: [directory, counting_directory],
        })
    }

    async fn measure(&self, read: Read, side: Side) -> Result<Row> {
        if let Side::Hub(tier) = side {
            self.azure.limit_hub(Some(Quota { tier, units: 1 })).await?;
            // The token bucket holds what one period allows. A client that was idle may use that at once.
            self.asker.until_refused(read).await?;
        }
        let before = self.charged(side).await?;
        let began = Instant::now();
        let until = began + self.duration;
        let clients = (0..read.clients()).map(|_| {
            let asker = Arc::clone(&self.asker);
            tokio::spawn(async move { asker.ask_until(read, side, until).await })
        });
        let (mut took, mut refused, mut too_expensive) = (Vec::new(), 0, false);
        for client in try_join_all(clients).await? {
            let asked = client?;
            took.extend(asked.took);
            refused += asked.told_to_wait;
            too_expensive |= asked.too_expensive;
        }
        let seconds = began.elapsed().as_secs_f64();
        let after = self.charged(side).await?;
        if let Side::Hub(_) = side {
            self.azure.limit_hub(None).await?;
        }
        took.sort_unstable();
        let quantile = |part: f64| {
            let place = ((took.len() as f64 * part) as usize).min(took.len().saturating_sub(1));
            took.get(place).map_or(f64::NAN, Duration::as_secs_f64)
        };
        let request_units_each = match side {
            Side::Copy | Side::Declared | Side::Cosmos => {
                Some((after - before) / took.len() as f64).filter(|units| units.is_finite())
            }
            Side::Hub(_) => None,
        };
        Ok(Row {
            read,
            side: side.name(),
            answered: took.len(),
            refused,
            too_expensive,
            per_second: took.len() as f64 / seconds,
            p50: quantile(0.5),
            p99: quantile(0.99),
            request_units_each,
        })
    }

    /// Request units so far, as the account counts them.
    async fn charged(&self, side: Side) -> Result<f64> {
        match side {
            Side::Hub(_) => Ok(0.0),
            Side::Copy | Side::Declared | Side::Cosmos => {
                Ok(self.azure.cosmos().await?.values().map(|count| count.request_units).sum())
            }
        }
    }
}

impl Asker {
    /// Sends requests until this time.
    async fn ask_until(&self, read: Read, side: Side, until: Instant) -> Result<Asked> {
        let mut asked = Asked::default();
        let mut began = Instant::now();
        while began < until {
            match self.ask(read, side).await? {
                Reply::Right => {
                    asked.took.push(began.elapsed());
                    began = Instant::now();
                }
                Reply::Wait => {
                    asked.told_to_wait += 1;
                    tokio::time::sleep(REFUSED_PAUSE).await;
                    if Instant::now() >= until {
                        break;
                    }
                }
                Reply::TooExpensive => {
                    asked.too_expensive = true;
                    break;
                }
            }
        }
        Ok(asked)
    }

    /// Uses up the remaining tokens of the hub's quota, with requests that it counts and answers at once: for an id that does not exist, or
    /// with a query that is not valid.
    async fn until_refused(&self, read: Read) -> Result<()> {
        for _ in 0..10_000 {
            let mut request = self.request(&self.hub, read, "none")?;
            if read != Read::Point {
                request = request.json(&json!({ "query": "no query" }));
            }
            let request = request.header("host", &self.hub_host).bearer_auth(&self.token);
            if request.send().await?.status() == StatusCode::TOO_MANY_REQUESTS {
                return Ok(());
            }
        }
        bail!("the hub refuses nothing")
    }

    async fn ask(&self, read: Read, side: Side) -> Result<Reply> {
        let device = &self.devices[rand::random_range(0..self.devices.len())];
        match side {
            Side::Cosmos => self.ask_cosmos(read, device).await.map(|()| Reply::Right),
            Side::Copy => {
                let request = self.request(&self.copy, read, device)?;
                let request = request.header("authorization", &self.copy_authorization);
                answered(request, read, device).await
            }
            Side::Declared => {
                let answer: Value = self.http.get(self.counts.clone()).send().await?.json().await?;
                ensure!(answer["counts"][0]["total"].as_u64().is_some_and(|total| total > 0), "{answer}");
                Ok(Reply::Right)
            }
            Side::Hub(_) => {
                let request = self.request(&self.hub, read, device)?;
                let request = request.header("host", &self.hub_host).bearer_auth(&self.token);
                answered(request, read, device).await
            }
        }
    }

    fn request(&self, base: &Url, read: Read, device: &str) -> Result<RequestBuilder> {
        let mut url = base.clone();
        url.set_query(Some(VERSION));
        {
            let mut segments = url.path_segments_mut().ok().context("no path can be appended")?;
            match read {
                Read::Point => segments.clear().extend(["twins", device]),
                Read::List | Read::Count => segments.clear().extend(["devices", "query"]),
            };
        }
        Ok(match read {
            Read::Point => self.http.get(url),
            Read::List | Read::Count => self
                .http
                .post(url)
                .header("x-ms-max-item-count", PAGE.get())
                .json(&json!({ "query": read.query() })),
        })
    }

    async fn ask_cosmos(&self, read: Read, device: &str) -> Result<()> {
        match read {
            Read::Point => {
                let key = TwinKey::device(self.hub_name.as_str(), device);
                let id = DocumentIdScheme::Device.document_id(&key);
                let answer = self.container.read_item(device.to_owned(), &id, None).await?;
                let item: Value = answer.into_model()?;
                ensure!(item["deviceId"] == device, "another document than that of {device}");
            }
            Read::List => {
                let query = Query::from("SELECT * FROM c WHERE c.tags.group00['setting-0000'] >= 'fe'");
                let options = QueryOptions::default().with_max_item_count(MaxItemCountHint::Limit(PAGE));
                let feed =
                    self.container.query_items::<Value>(query, FeedScope::full_container(), Some(options));
                let mut rows = 0;
                let mut pages = feed.await?.into_pages();
                // Reads as many rows as a page of the API has, from as many physical partitions as necessary.
                while rows < PAGE.get() as usize {
                    let Some(page) = pages.try_next().await? else { break };
                    rows += page.into_items().len();
                }
                ensure!(rows >= PAGE.get() as usize, "{rows} rows");
            }
            Read::Count => bail!("the SDK sends no counts over partitions"),
        }
        Ok(())
    }
}

/// The results of repeated requests.
#[derive(Default)]
struct Asked {
    /// The duration of each answer.
    took: Vec<Duration>,
    told_to_wait: usize,
    too_expensive: bool,
}

/// The result of one request.
enum Reply {
    Right,
    Wait,
    /// The request takes more than one request may take.
    TooExpensive,
}

async fn answered(request: RequestBuilder, read: Read, device: &str) -> Result<Reply> {
    let answer = request.send().await?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::TOO_MANY_REQUESTS => return Ok(Reply::Wait),
        status => {
            let text = answer.text().await.unwrap_or_default();
            if text.contains("more than one request may take") {
                return Ok(Reply::TooExpensive);
            }
            bail!("{}: {status}: {text}", read.name())
        }
    }
    let body: Value = answer.json().await?;
    let is_right = match read {
        Read::Point => body["deviceId"] == device,
        Read::List => body.as_array().is_some_and(|rows| rows.len() == PAGE.get() as usize),
        Read::Count => body[0]["n"].as_u64().is_some_and(|count| count > 0),
    };
    ensure!(is_right, "{}: a wrong answer", read.name());
    Ok(Reply::Right)
}

/// Starts a daemon with the declared count, and waits until the count is complete. No twins change here. Each poll makes the emulator read
/// every document on the same cores as the measurement, so polling stops then.
async fn count(program: &Path, azure: &Azure) -> Result<(Daemon, Url, tempfile::TempDir)> {
    let directory = tempfile::tempdir()?;
    let condition = Read::Count.query().split_once(" WHERE ").context("has a condition")?.1;
    let more = format!(
        "[eventhubs]\nstart = \"latest\"\n[cosmos]\nrequest_timeout = \"60s\"\n[counting]\ninterval = \"1h\"\n[[counts]]\nname = \"n\"\nwhere = \"{condition}\"\n"
    );
    let setup = Setup::new(program, directory.path(), &azure.endpoints, &more)?;
    let daemon = setup.in_a_group_of_its_own().start().await?;
    let began = Instant::now();
    loop {
        let (_, body) = daemon.get("/api/counts").await?;
        let answer: Value = serde_json::from_str(&body)?;
        if answer["counts"][0]["total"].is_u64() {
            break;
        }
        ensure!(began.elapsed() < COUNT_LIMIT, "the count is not complete: {answer}");
        tokio::time::sleep(REFUSED_PAUSE).await;
    }
    let url = format!("http://{}/api/counts", daemon.address()).parse()?;
    Ok((daemon, url, directory))
}

/// Starts the process that serves reads, over plain HTTP as behind an ingress: TLS costs once per connection only.
async fn serve(program: &Path, azure: &Azure) -> Result<(Daemon, Url, tempfile::TempDir)> {
    let directory = tempfile::tempdir()?;
    let port = free_port()?;
    let more = format!(
        "[cosmos]\nrequest_timeout = \"60s\"\n[serve]\nlisten = \"127.0.0.1:{port}\"\ntls = \"ingress\"\nhub = \"{}\"\n\
         connection_strings = \"HostName=localhost;SharedAccessKeyName={POLICY};SharedAccessKey={KEY}\"\n\
         max_request_units = 100000\nmax_concurrent_queries = {QUERY_CLIENTS}\nmax_query_time = \"60s\"\n",
        azure.endpoints.iothub_name
    );
    let setup = Setup::new(program, directory.path(), &azure.endpoints, &more)?.serving();
    let daemon = setup.in_a_group_of_its_own().start().await?;
    Ok((daemon, format!("http://127.0.0.1:{port}/").parse()?, directory))
}

/// A signature as the official clients send it, valid for a day.
fn signature() -> Result<String> {
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 86_400;
    let mut mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(KEY)?)?;
    mac.update(format!("localhost\n{expiry}").as_bytes());
    // These characters of base64 have another meaning in a token.
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    Ok(format!("SharedAccessSignature sr=localhost&sig={signature}&se={expiry}&skn={POLICY}"))
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} twins of 1 KiB; {POINT_CLIENTS} clients read single twins, {QUERY_CLIENTS} query; {} s each\n",
            self.twins, self.seconds
        )?;
        writeln!(f, "| read | of | per second | p50 · p99 ms | throttled | RU |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let units = row.request_units_each.map_or_else(|| "–".to_owned(), |units| format!("{units:.1}"));
            if row.too_expensive {
                writeln!(
                    f,
                    "| {} | {} | refused: too expensive for one request | – | – | – |",
                    row.read.name(),
                    row.side
                )?;
                continue;
            }
            writeln!(
                f,
                "| {} | {} | {:.1} | {:.1} · {:.1} | {} | {units} |",
                row.read.name(),
                row.side,
                row.per_second,
                row.p50 * 1e3,
                row.p99 * 1e3,
                row.refused,
            )?;
        }
        Ok(())
    }
}
