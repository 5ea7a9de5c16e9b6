// What twinsync needs in Azure, in one resource group: see README.md beside this file.
targetScope = 'resourceGroup'

// ---- names and places ----

@description('Region of everything.')
param location string = resourceGroup().location

@description('What names begin with; lower-case letters, digits and hyphens. Names that are part of host names get a suffix that is unique to the resource group.')
@minLength(3)
@maxLength(16)
param name string = 'twinsync'

@description('Tags of everything.')
param tags object = {
  application: 'twinsync'
}

// ---- IoT hub ----

@description('new: a hub is created, with its routes. existing: a hub of yours is read and given nothing but a role; its routes are added by the script route-existing-hub.')
@allowed([
  'new'
  'existing'
])
param iotHubMode string

@description('Name of the hub. Required for an existing one; empty for a new one makes a name up.')
@maxLength(50)
param iotHubName string = ''

@description('Subscription of an existing hub.')
param iotHubSubscriptionId string = subscription().subscriptionId

@description('Resource group of an existing hub.')
param iotHubResourceGroup string = resourceGroup().name

@description('Tier of the hub, new or existing: what twinsync may ask it follows from this. Basic has no twins.')
@allowed([
  'S1'
  'S2'
  'S3'
])
param iotHubSku string = 'S1'

@description('Units of the hub, new or existing.')
@minValue(1)
@maxValue(200)
param iotHubUnits int = 1

@description('Lowest version of TLS that a new hub takes. Azure enforces 1.2 in some regions only, and may refuse to create the hub in others; IoT Hub announced the end of older versions for August 2025 everywhere. It cannot be changed later. Empty: what IoT Hub takes by itself.')
@allowed([
  ''
  '1.2'
])
param iotHubMinTlsVersion string = ''

@description('Whether twinsync may ask the hub about its twins: for repair, backfill and audit. Without, it follows the events only.')
param askIotHub bool = true

// ---- Event Hubs ----

@description('Tier of the Event Hubs namespace. Basic has no consumer groups of one\'s own.')
@allowed([
  'Standard'
  'Premium'
])
param eventHubsSku string = 'Standard'

@description('Throughput units (Standard) or processing units (Premium: 1, 2, 4, 8, 12 or 16).')
@minValue(1)
@maxValue(40)
param eventHubsCapacity int = 1

@description('Whether Standard adds throughput units by itself, up to eventHubsMaximumThroughputUnits.')
param eventHubsAutoInflate bool = true

@description('Where eventHubsAutoInflate ends.')
@minValue(1)
@maxValue(40)
param eventHubsMaximumThroughputUnits int = 4

@description('Partitions of the Event Hub: how far replicas can share the work. Standard has at most 32 and never changes them again.')
@minValue(1)
@maxValue(100)
param eventHubPartitions int = 8

@description('Days for which events are kept: the time there is to mend anything before changes are lost. Standard allows at most 7.')
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

@description('How throughput is paid for. docs/cost.md says which is cheapest when.')
@allowed([
  'autoscale'
  'manual'
  'serverless'
])
param cosmosThroughputMode string = 'autoscale'

@description('Request units per second: the maximum with autoscale (1000 or more, in thousands), the fixed value with manual (400 or more, in hundreds). Serverless has none.')
@minValue(400)
param cosmosThroughput int = 1000

@description('Whether the account is spread over the region\'s availability zones. It cannot be changed later.')
param cosmosZoneRedundant bool = false

// ---- storage ----

@description('Redundancy of the storage account. Dead letters exist nowhere else in the end.')
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

@description('Whether Cosmos DB and storage can be reached from outside private endpoints. Disabled: bring private endpoints of your own.')
@allowed([
  'Enabled'
  'Disabled'
])
param storesPublicNetworkAccess string = 'Enabled'

// ---- where the daemon runs ----

@description('aks: a service account of a cluster is trusted. appService: the app is created. elsewhere: only the identity, to be attached to a virtual machine or a container app.')
@allowed([
  'aks'
  'appService'
  'elsewhere'
])
param hosting string

@description('aks: issuer of the cluster, az aks show --query oidcIssuerProfile.issuerUrl. Empty: no cluster is trusted yet.')
param aksOidcIssuer string = ''

@description('aks: namespace of the service account.')
@minLength(1)
@maxLength(63)
param aksNamespace string = 'twinsync'

@description('aks: name of the service account.')
@minLength(1)
@maxLength(253)
param aksServiceAccount string = 'twinsync'

@description('appService: image with its tag or digest, as in registry.example/twinsync:1.2.3.')
param image string = ''

@description('appService: name of the Azure container registry that holds the image. Empty: the image is public.')
@maxLength(50)
param registryName string = ''

@description('appService: resource group of the container registry.')
param registryResourceGroup string = resourceGroup().name

@description('appService: size of the plan. Always On needs Basic or more.')
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

@description('appService: replicas. They share the partitions.')
@minValue(1)
@maxValue(10)
param appServiceReplicas int = 2

@description('appService: seconds between the request to stop and the end by force. More than shutdown.drain_timeout (25 s), and some for the last checkpoints.')
@minValue(35)
@maxValue(120)
param appServiceStopTimeLimit int = 60

@description('appService: address ranges (CIDR) that may see the status page and metrics, which ask nobody who they are. Empty: nobody.')
param appServiceAllowedAddresses array = []

@description('appService: resource id of a subnet for outgoing connections, for private endpoints. Empty: none.')
param appServiceOutboundSubnetId string = ''

@description('More settings of the daemon, as environment variables: TWINSYNC__SECTION__KEY. They win over those of this deployment. No secrets: a deployment keeps its parameters.')
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

// Takes the namespace's name from the module above, and so comes after the role that it routes with.
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
  // A week more than events are kept: a replay would bring deleted twins back otherwise.
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
  // The first start copies the twins that were there before the routes.
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

@description('Settings of the daemon, as environment variables. None is secret.')
output settings object = settings

@description('Client id of the daemon\'s identity: the annotation azure.workload.identity/client-id of the service account.')
output identityClientId string = identities.outputs.daemonClientId

@description('Resource id of the daemon\'s identity, to attach it to a virtual machine or a container app.')
output identityId string = identities.outputs.daemonId

@description('The service account that is trusted, where hosting is aks.')
output federatedSubject string = onAks ? 'system:serviceaccount:${aksNamespace}:${aksServiceAccount}' : ''

@description('Name, subscription and resource group of the IoT hub; what route-existing-hub works with.')
output iotHubName string = hubName

@description('Subscription of the IoT hub.')
output iotHubSubscriptionId string = hubSubscription

@description('Resource group of the IoT hub.')
output iotHubResourceGroup string = hubResourceGroup

@description('new or existing.')
output iotHubMode string = iotHubMode

@description('Resource id of the identity that the IoT hub routes with.')
output routingIdentityId string = identities.outputs.routingId

@description('Address of the Event Hubs namespace, as an endpoint of the IoT hub names it.')
output routingEndpointUri string = 'sb://${eventHubs.outputs.namespaceHost}'

@description('Event Hub that the routes end in.')
output routingEntityPath string = eventHubs.outputs.hubName
