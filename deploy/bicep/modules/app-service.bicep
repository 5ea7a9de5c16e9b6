// The daemon as a Linux container of App Service.

@description('Region of the plan and the app.')
param location string

@description('Name of the plan.')
@minLength(1)
@maxLength(60)
param planName string

@description('Name of the app; a part of its host name.')
@minLength(2)
@maxLength(60)
param appName string

@description('Size of the plan. Always On needs Basic or more.')
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

@description('Replicas. They share the partitions through leases on blobs.')
@minValue(1)
@maxValue(10)
param replicas int

@description('Image with its tag or digest, as in registry.example/twinsync:1.2.3.')
@minLength(1)
param image string

@description('Whether the image is pulled with the identity, from a container registry of Azure that gave it AcrPull.')
param pullWithIdentity bool

@description('Resource id of the daemon\'s identity.')
param identityId string

@description('Client id of the daemon\'s identity.')
param identityClientId string

@description('Settings of the daemon, as environment variables.')
param settings object

@description('Seconds between the request to stop and the end by force. More than shutdown.drain_timeout, which is 25 s, and some for the last checkpoints.')
@minValue(35)
@maxValue(120)
param stopTimeLimit int

@description('Address ranges (CIDR) that may see the status page and metrics, which ask nobody who they are. Empty: nobody.')
param allowedAddresses array

@description('Resource id of a subnet for outgoing connections, for private endpoints. Empty: none.')
param outboundSubnetId string

@description('Tags of the plan and the app.')
param tags object

var port = '8080'

var platformSettings = {
  // App Service waits 5 s by itself, and then ends the container: the leases would run out instead of being handed over.
  WEBSITES_CONTAINER_STOP_TIME_LIMIT: string(stopTimeLimit)
  WEBSITES_ENABLE_APP_SERVICE_STORAGE: 'false'
  WEBSITES_PORT: port
  PORT: port
  // Written out, this wins over PORT.
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
      // Without it, an app that nobody calls is stopped, and with it the replication.
      alwaysOn: true
      // Whether the process lives. Not /readyz: an outage of Cosmos DB is no reason to replace an instance.
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

// Nobody logs in to the deployment site with a password.
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
