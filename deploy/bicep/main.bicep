// All Azure resources that twinsync needs, in one resource group. README.md describes them.
targetScope = 'resourceGroup'

// ---- names and regions ----

@description('Region of all resources.')
param location string = resourceGroup().location

@description('Prefix of the resource names: lower-case letters, digits and hyphens. Names that are part of host names get a suffix that is unique to the resource group.')
@minLength(3)
@maxLength(16)
param name string = 'twinsync'

@description('Tags of all resources.')
param tags object = {
  application: 'twinsync'
}

// ---- IoT hub ----

@description('new: creates a hub with its routes. existing: uses your hub, and only assigns a role on it; the script route-existing-hub adds the routes.')
@allowed([
  'new'
  'existing'
])
param iotHubMode string

@description('Name of the hub. Required for an existing hub. Empty for a new hub: the name is generated.')
@maxLength(50)
param iotHubName string = ''

@description('Subscription of an existing hub.')
param iotHubSubscriptionId string = subscription().subscriptionId

@description('Resource group of an existing hub.')
param iotHubResourceGroup string = resourceGroup().name

@description('Tier of the hub, new or existing. The rate of twinsync\'s requests to the hub depends on it. The Basic tiers have no twins.')
@allowed([
  'S1'
  'S2'
  'S3'
])
param iotHubSku string = 'S1'

@description('Number of units of the hub, new or existing.')
@minValue(1)
@maxValue(200)
param iotHubUnits int = 1

@description('Minimum TLS version of a new hub. Azure enforces 1.2 only in some regions, and may refuse to create the hub in others. IoT Hub announced the end of older versions in all regions for August 2025. This property cannot be changed later. Empty: the default of IoT Hub.')
@allowed([
  ''
  '1.2'
])
param iotHubMinTlsVersion string = ''

@description('Whether twinsync may read twins from the hub, for repair, backfill and audit. If false, it only processes events.')
param askIotHub bool = true

// ---- Event Hubs ----

@description('Tier of the Event Hubs namespace. The Basic tier has only the default consumer group.')
@allowed([
  'Standard'
  'Premium'
])
param eventHubsSku string = 'Standard'

@description('Number of throughput units (Standard) or processing units (Premium: 1, 2, 4, 8, 12 or 16).')
@minValue(1)
@maxValue(40)
param eventHubsCapacity int = 1

@description('Whether Event Hubs (Standard) adds throughput units automatically, up to eventHubsMaximumThroughputUnits.')
param eventHubsAutoInflate bool = true

@description('Maximum number of throughput units for eventHubsAutoInflate.')
@minValue(1)
@maxValue(40)
param eventHubsMaximumThroughputUnits int = 4

@description('Number of partitions of the Event Hub, which is also the maximum number of replicas that have work. Standard allows at most 32, and cannot change the number later.')
@minValue(1)
@maxValue(100)
param eventHubPartitions int = 8

@description('Retention of events in days. A failure must be fixed within this time; otherwise changes are lost. Standard allows at most 7.')
@minValue(1)
@maxValue(90)
param eventHubRetentionDays int = 7

// ---- Cosmos DB ----

@description('Name of the database.')
@minLength(1)
@maxLength(255)
param cosmosDatabase string = 'twinsync'

@description('Name of the container.')
@minLength(1)
@maxLength(255)
param cosmosContainer string = 'twins'

@description('Throughput mode of Cosmos DB. docs/cost.md says when each mode is the cheapest.')
@allowed([
  'autoscale'
  'manual'
  'serverless'
])
param cosmosThroughputMode string = 'autoscale'

@description('Request units per second: the maximum for autoscale (a multiple of 1000), or the fixed value for manual (400 or more, a multiple of 100). Not used for serverless.')
@minValue(400)
param cosmosThroughput int = 1000

@description('Whether the account uses the availability zones of the region. This cannot be changed later.')
param cosmosZoneRedundant bool = false

// ---- storage ----

@description('Redundancy of the storage account. After the retention of the events, dead letters are stored nowhere else.')
@allowed([
  'Standard_LRS'
  'Standard_ZRS'
  'Standard_GRS'
  'Standard_GZRS'
])
param storageSku string = 'Standard_ZRS'

@description('Name of the blob container for checkpoints, leases and dead letters.')
@minLength(3)
@maxLength(63)
param blobContainer string = 'twinsync'

@description('Whether Cosmos DB and storage allow access from public networks. If Disabled, create your own private endpoints.')
@allowed([
  'Enabled'
  'Disabled'
])
param storesPublicNetworkAccess string = 'Enabled'

// ---- hosting of the daemon ----

@description('aks: the identity trusts a service account of a cluster. appService: creates the app. elsewhere: creates only the identity, which you attach to a virtual machine or a container app.')
@allowed([
  'aks'
  'appService'
  'elsewhere'
])
param hosting string

@description('aks: OIDC issuer of the cluster, from az aks show --query oidcIssuerProfile.issuerUrl. Empty: the identity trusts no cluster yet.')
param aksOidcIssuer string = ''

@description('aks: namespace of the service account.')
@minLength(1)
@maxLength(63)
param aksNamespace string = 'twinsync'

@description('aks: name of the service account.')
@minLength(1)
@maxLength(253)
param aksServiceAccount string = 'twinsync'

@description('appService: image with its tag or digest, for example registry.example/twinsync:1.2.3.')
param image string = ''

@description('appService: name of the Azure container registry of the image. Empty: the image is public.')
@maxLength(50)
param registryName string = ''

@description('appService: resource group of the container registry.')
param registryResourceGroup string = resourceGroup().name

@description('appService: size of the plan. Always On needs at least the Basic tier.')
@allowed([
  'B1'
  'B2'
  'B3'
  'P0v3'
  'P1v3'
  'P2v3'
  'P3v3'
])
param appServicePlanSku string = 'P0v3'

@description('appService: number of replicas, which share the partitions.')
@minValue(1)
@maxValue(10)
param appServiceReplicas int = 2

@description('appService: seconds between SIGTERM and SIGKILL. Longer than shutdown.drain_timeout (25 s), with some seconds for the last checkpoints.')
@minValue(35)
@maxValue(120)
param appServiceStopTimeLimit int = 60

@description('appService: address ranges (CIDR) that may open the status page and the metrics, which have no authentication. Empty: none.')
param appServiceAllowedAddresses array = []

@description('appService: resource id of a subnet for outgoing connections, for private endpoints. Empty: none.')
param appServiceOutboundSubnetId string = ''

@description('Additional settings of the daemon, as environment variables: TWINSYNC__SECTION__KEY. They override the settings of this deployment. Do not put secrets here, because Azure stores the parameters of a deployment.')
param extraSettings object = {}

var base = toLower(name)
var suffix = uniqueString(resourceGroup().id, base)
var isNewHub = iotHubMode == 'new'
var hubName = empty(iotHubName) ? '${base}-${suffix}' : iotHubName
var hubSubscription = isNewHub ? subscription().subscriptionId : iotHubSubscriptionId
var hubResourceGroup = isNewHub ? resourceGroup().name : iotHubResourceGroup
var onAks = hosting == 'aks'
var onAppService = hosting == 'appService'
var credentialKinds = {
  aks: 'workload'
  appService: 'managed'
  elsewhere: 'auto'
}
var pullsWithIdentity = onAppService && !empty(registryName)

module identities 'modules/identities.bicep' = {
  name: 'twinsync-identities'
  params: {
    location: location
    daemonName: '${base}-daemon'
    routingName: '${base}-routing'
    oidcIssuer: onAks ? aksOidcIssuer : ''
    serviceAccountNamespace: aksNamespace
    serviceAccountName: aksServiceAccount
    tags: tags
  }
}

module eventHubs 'modules/event-hubs.bicep' = {
  name: 'twinsync-event-hubs'
  params: {
    location: location
    namespaceName: '${base}-${suffix}'
    hubName: 'iothub-twins'
    consumerGroupName: 'twinsync'
    skuName: eventHubsSku
    capacity: eventHubsCapacity
    partitionCount: eventHubPartitions
    retentionDays: eventHubRetentionDays
    autoInflate: eventHubsAutoInflate
    maximumThroughputUnits: eventHubsMaximumThroughputUnits
    receiverPrincipalId: identities.outputs.daemonPrincipalId
    senderPrincipalId: identities.outputs.routingPrincipalId
    tags: tags
  }
}

// Uses an output of the module above, so that the identity has its role on the Event Hub before the hub is created.
module newIotHub 'modules/iot-hub.bicep' = if (isNewHub) {
  name: 'twinsync-iot-hub'
  params: {
    location: location
    hubName: hubName
    skuName: iotHubSku
    units: iotHubUnits
    minTlsVersion: iotHubMinTlsVersion
    routingIdentityId: identities.outputs.routingId
    namespaceHost: eventHubs.outputs.namespaceHost
    eventHubName: eventHubs.outputs.hubName
    tags: tags
  }
}

module iotHubAccess 'modules/iot-hub-access.bicep' = {
  name: 'twinsync-iot-hub-access'
  scope: resourceGroup(hubSubscription, hubResourceGroup)
  params: {
    hubName: hubName
    principalId: identities.outputs.daemonPrincipalId
    mayAsk: askIotHub
  }
  dependsOn: [
    newIotHub
  ]
}

module cosmos 'modules/cosmos.bicep' = {
  name: 'twinsync-cosmos'
  params: {
    location: location
    accountName: '${base}-${suffix}'
    databaseName: cosmosDatabase
    containerName: cosmosContainer
    throughputMode: cosmosThroughputMode
    throughput: cosmosThroughput
    zoneRedundant: cosmosZoneRedundant
    publicNetworkAccess: storesPublicNetworkAccess
    principalId: identities.outputs.daemonPrincipalId
    tags: tags
  }
}

module storage 'modules/storage.bicep' = {
  name: 'twinsync-storage'
  params: {
    location: location
    accountName: take('${replace(base, '-', '')}${suffix}', 24)
    containerName: blobContainer
    skuName: storageSku
    publicNetworkAccess: storesPublicNetworkAccess
    principalId: identities.outputs.daemonPrincipalId
    tags: tags
  }
}

var streamSettings = {
  TWINSYNC__EVENTHUBS__NAMESPACE: eventHubs.outputs.namespaceHost
  TWINSYNC__EVENTHUBS__CONSUMER_GROUP: eventHubs.outputs.consumerGroupName
  TWINSYNC__EVENTHUBS__LIFECYCLE__HUB: eventHubs.outputs.hubName
  TWINSYNC__EVENTHUBS__TWIN_CHANGES__HUB: eventHubs.outputs.hubName
  TWINSYNC__EVENTHUBS__RETENTION: '${eventHubRetentionDays}d'
  // A week longer than the retention of events. Otherwise a replay could bring deleted twins back.
  TWINSYNC__DOCUMENT__TOMBSTONE_TTL: '${eventHubRetentionDays + 7}d'
  TWINSYNC__CREDENTIAL__KIND: credentialKinds[hosting]
  TWINSYNC__CREDENTIAL__CLIENT_ID: identities.outputs.daemonClientId
  TWINSYNC__COSMOS__ENDPOINT: cosmos.outputs.endpoint
  TWINSYNC__COSMOS__DATABASE: cosmos.outputs.databaseName
  TWINSYNC__COSMOS__CONTAINER: cosmos.outputs.containerName
  TWINSYNC__BLOB__CONTAINER_URL: storage.outputs.containerUrl
  TWINSYNC__CHECKPOINT__STORE: 'blob'
  TWINSYNC__DEAD_LETTERS__STORE: 'blob'
  TWINSYNC__TELEMETRY__LOG_FORMAT: 'json'
}

var registrySettings = {
  TWINSYNC__IOTHUB__HOSTS: iotHubAccess.outputs.hostName
  TWINSYNC__IOTHUB__TIER: toLower(iotHubSku)
  TWINSYNC__IOTHUB__UNITS: string(iotHubUnits)
  // The first start copies the twins that existed before the routes.
  TWINSYNC__BACKFILL__ON_START: 'if_empty'
}

var settings = union(streamSettings, askIotHub ? registrySettings : {}, extraSettings)

module registryAccess 'modules/registry-access.bicep' = if (pullsWithIdentity) {
  name: 'twinsync-registry-access'
  scope: resourceGroup(registryResourceGroup)
  params: {
    registryName: registryName
    principalId: identities.outputs.daemonPrincipalId
  }
}

module app 'modules/app-service.bicep' = if (onAppService) {
  name: 'twinsync-app-service'
  params: {
    location: location
    planName: '${base}-plan'
    appName: '${base}-${suffix}'
    planSku: appServicePlanSku
    replicas: appServiceReplicas
    image: image
    pullWithIdentity: pullsWithIdentity
    identityId: identities.outputs.daemonId
    identityClientId: identities.outputs.daemonClientId
    settings: settings
    stopTimeLimit: appServiceStopTimeLimit
    allowedAddresses: appServiceAllowedAddresses
    outboundSubnetId: appServiceOutboundSubnetId
    tags: tags
  }
  dependsOn: [
    registryAccess
  ]
}

@description('Settings of the daemon, as environment variables. None of them is secret.')
output settings object = settings

@description('Client id of the daemon\'s identity, for the annotation azure.workload.identity/client-id of the service account.')
output identityClientId string = identities.outputs.daemonClientId

@description('Resource id of the daemon\'s identity, to attach it to a virtual machine or a container app.')
output identityId string = identities.outputs.daemonId

@description('Service account that the identity trusts if hosting is aks; otherwise empty.')
output federatedSubject string = onAks ? 'system:serviceaccount:${aksNamespace}:${aksServiceAccount}' : ''

@description('Name of the IoT hub. The script route-existing-hub reads this output and the following ones.')
output iotHubName string = hubName

@description('Subscription of the IoT hub.')
output iotHubSubscriptionId string = hubSubscription

@description('Resource group of the IoT hub.')
output iotHubResourceGroup string = hubResourceGroup

@description('Whether the IoT hub is new or existing.')
output iotHubMode string = iotHubMode

@description('Resource id of the identity with which the IoT hub sends events.')
output routingIdentityId string = identities.outputs.routingId

@description('URI of the Event Hubs namespace, for an endpoint of the IoT hub.')
output routingEndpointUri string = 'sb://${eventHubs.outputs.namespaceHost}'

@description('Event Hub that receives the routed events.')
output routingEntityPath string = eventHubs.outputs.hubName
