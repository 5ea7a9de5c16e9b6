//! What Prometheus makes of the daemon: the rules and the dashboard of `deploy/`, judged by real outages and a real Prometheus.

mod outages;
