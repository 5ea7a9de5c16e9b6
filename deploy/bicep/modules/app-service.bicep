// The daemon as a Linux container of App Service.

@description('Region of the plan and the app.')
param location string

@description('Name of the plan.')
@minLength(1)
@maxLength(60)
param planName string

@description('Name of the app, which is part of its host name.')
@minLength(2)
@maxLength(60)
param appName string

@description('Size of the plan. Always On needs at least the Basic tier.')
@allowed([
  'B1'
  'B2'
  'B3'
  'P0v3'
  'P1v3'
  'P2v3'
  'P3v3'
])
param planSku string

@description('Number of replicas, which share the partitions through leases on blobs.')
@minValue(1)
@maxValue(10)
param replicas int

@description('Image with its tag or digest, for example registry.example/twinsync:1.2.3.')
@minLength(1)
param image string

@description('Whether App Service pulls the image with the identity, which needs the role AcrPull on the Azure container registry.')
param pullWithIdentity bool

@description('Resource id of the daemon\'s identity.')
param identityId string

@description('Client id of the daemon\'s identity.')
param identityClientId string

@description('Settings of the daemon, as environment variables.')
param settings object

@description('Seconds between SIGTERM and SIGKILL. Longer than shutdown.drain_timeout, which is 25 s, with some seconds for the last checkpoints.')
@minValue(35)
@maxValue(120)
param stopTimeLimit int

@description('Address ranges (CIDR) that may open the status page and the metrics, which have no authentication. Empty: none.')
param allowedAddresses array

@description('Resource id of a subnet for outgoing connections, for private endpoints. Empty: none.')
param outboundSubnetId string

@description('Tags of the plan and the app.')
param tags object

var port = '8080'

var platformSettings = {
  // By default, App Service kills the container after 5 s. Then the leases would expire instead of being released.
  WEBSITES_CONTAINER_STOP_TIME_LIMIT: string(stopTimeLimit)
  WEBSITES_ENABLE_APP_SERVICE_STORAGE: 'false'
  WEBSITES_PORT: port
  PORT: port
  // This setting overrides PORT.
  TWINSYNC__HTTP__LISTEN: '0.0.0.0:${port}'
  TWINSYNC__CREDENTIAL__KIND: 'managed'
}

resource plan 'Microsoft.Web/serverfarms@2024-04-01' = {
  name: planName
  location: location
  tags: tags
  kind: 'linux'
  sku: {
    name: planSku
    capacity: replicas
  }
  properties: {
    reserved: true
  }
}

resource app 'Microsoft.Web/sites@2024-04-01' = {
  name: appName
  location: location
  tags: tags
  kind: 'app,linux,container'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    clientAffinityEnabled: false
    publicNetworkAccess: 'Enabled'
    virtualNetworkSubnetId: empty(outboundSubnetId) ? null : outboundSubnetId
    vnetRouteAllEnabled: !empty(outboundSubnetId)
    siteConfig: {
      linuxFxVersion: 'DOCKER|${image}'
      acrUseManagedIdentityCreds: pullWithIdentity
      acrUserManagedIdentityID: pullWithIdentity ? identityClientId : null
      // Without Always On, App Service stops an app that gets no requests, and so stops the replication.
      alwaysOn: true
      // Liveness instead of /readyz, because a new instance does not help during an outage of Cosmos DB.
      healthCheckPath: '/livez'
      numberOfWorkers: replicas
      http20Enabled: true
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      ftpsState: 'Disabled'
      remoteDebuggingEnabled: false
      ipSecurityRestrictionsDefaultAction: 'Deny'
      scmIpSecurityRestrictionsDefaultAction: 'Deny'
      scmIpSecurityRestrictionsUseMain: true
      ipSecurityRestrictions: [for (addresses, index) in allowedAddresses: {
        name: 'allowed-${index}'
        action: 'Allow'
        ipAddress: addresses
        priority: 100 + index
      }]
      appSettings: [for item in items(union(settings, platformSettings)): {
        name: item.key
        value: item.value
      }]
    }
  }
}

// Disables password logins to the deployment site.
resource ftpCredentials 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-04-01' = {
  parent: app
  name: 'ftp'
  properties: {
    allow: false
  }
}

resource scmCredentials 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-04-01' = {
  parent: app
  name: 'scm'
  properties: {
    allow: false
  }
}

@description('Host name of the app.')
output hostName string = app.properties.defaultHostName
